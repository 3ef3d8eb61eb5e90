/** The codec against bytes written out by hand from the NBD specification, "Transmission". */
import { describe, expect, test } from "bun:test";
import { MAX_PAYLOAD, putReply, wireError } from "../../../../src/nbd/wire/codec.ts";
import { RequestHeader } from "../../../../src/nbd/wire/request-header.ts";
import { hex } from "../../../support/golden.ts";

/** Not 0 and odd, as a header that follows a payload may lie. */
const AT = 5;

/** A view of `bytes` at AT, with other bytes all around. */
function viewOf(text: string): DataView {
  const bytes = new Uint8Array(64).fill(0xa5);
  bytes.set(hex(text), AT);
  return new DataView(bytes.buffer);
}

/** What a header says, by the codec under test. */
function decode(text: string): RequestHeader {
  const header = new RequestHeader();
  header.decode(viewOf(text), AT);
  return header;
}

describe("a request", () => {
  test("every field is read from its place, in network byte order", () => {
    const decoded = decode(`
      25609513  0003  0006  0102030405060708  0000000912345000  fedcb000`);
    expect({ ...decoded }).toEqual({
      magic: 0x25609513,
      command: 6,
      flags: 0x30000,
      cookieHigh: 0x01020304,
      cookieLow: 0x05060708,
      offset: 0x9_1234_5000,
      length: 0xfedcb000,
    });
  });

  // The field "type" of the specification.
  test.each([
    ["NBD_CMD_READ", "0000", 0],
    ["NBD_CMD_WRITE", "0001", 1],
    ["NBD_CMD_DISC", "0002", 2],
    ["NBD_CMD_FLUSH", "0003", 3],
    ["NBD_CMD_TRIM", "0004", 4],
    ["NBD_CMD_CACHE", "0005", 5],
    ["NBD_CMD_WRITE_ZEROES", "0006", 6],
    ["the last there can be", "ffff", 65_535],
  ])("command %s", (_, type, number) => {
    const decoded = decode(`25609513 0000 ${type} 0000000000000000 0000000000000000 00000000`);
    expect(decoded).toMatchObject({ command: number, flags: 0 });
  });

  // The codec leaves the flags in the upper half of the word, where <linux/nbd.h> has them.
  test.each([
    ["none", "0000", 0],
    ["NBD_CMD_FLAG_FUA", "0001", 0x1_0000],
    ["NBD_CMD_FLAG_NO_HOLE", "0002", 0x2_0000],
    ["NBD_CMD_FLAG_DF", "0004", 0x4_0000],
    ["the uppermost, which must not turn negative", "8000", 0x8000_0000],
    ["all", "ffff", 0xffff_0000],
  ])("flags: %s", (_, flags, number) => {
    const decoded = decode(`25609513 ${flags} 0001 0000000000000000 0000000000000000 00000000`);
    expect(decoded).toMatchObject({ command: 1, flags: number });
  });

  test.each([
    ["0", "0000000000000000", 0],
    ["2^32 - 512", "00000000fffffe00", 4_294_966_784],
    ["2^32", "0000000100000000", 4_294_967_296],
    ["2^40 + 512", "0000010000000200", 1_099_511_628_288],
    ["2^53 - 512", "001ffffffffffe00", 9_007_199_254_740_480],
    ["2^53", "0020000000000000", 9_007_199_254_740_992],
  ])("offset %s is exact", (_, offset, number) => {
    expect(decode(`25609513 0000 0000 0000000000000000 ${offset} 00000000`).offset).toBe(number);
  });

  test("offset 2^64 - 1 is beyond every device", () => {
    const { offset } = decode("25609513 0000 0000 0000000000000000 ffffffffffffffff 00000000");
    expect(offset).toBeGreaterThan(Number.MAX_SAFE_INTEGER);
    expect(offset).toBeGreaterThanOrEqual(18_446_744_073_709_549_568);
  });

  test.each([
    ["0", "00000000", 0],
    ["32 MiB", "02000000", 33_554_432],
    ["2^31", "80000000", 2_147_483_648],
    ["2^32 - 1", "ffffffff", 4_294_967_295],
  ])("length %s", (_, length, number) => {
    expect(decode(`25609513 0000 0000 0000000000000000 0000000000000000 ${length}`).length).toBe(number);
  });

  test("the longest payload is 32 MiB", () => {
    expect(MAX_PAYLOAD).toBe(33_554_432);
  });
});

describe("a reply", () => {
  test.each([
    ["success", 0, "0000000000000000", "67446698 00000000 0000000000000000"],
    ["an error", 28, "0102030405060708", "67446698 0000001c 0102030405060708"],
    ["a cookie of ones", 5, "ffffffffffffffff", "67446698 00000005 ffffffffffffffff"],
    [
      "a cookie whose halves have the sign bit",
      108,
      "80000001f0000002",
      "67446698 0000006c 80000001f0000002",
    ],
  ])("%s", (_, error, cookie, golden) => {
    const request = decode(`25609513 0000 0000 ${cookie} 0000000000000000 00000000`);
    const reply = new DataView(new ArrayBuffer(64));
    putReply(reply, AT, error, request);
    expect(new Uint8Array(reply.buffer, AT, 16)).toEqual(hex(golden));
    expect(new Uint8Array(reply.buffer, 0, AT)).toEqual(new Uint8Array(AT));
    expect(new Uint8Array(reply.buffer, AT + 16)).toEqual(new Uint8Array(64 - AT - 16));
  });
});

describe("the wire's error for an errno", () => {
  // Section "Error values" of the specification; the rest is what this project maps to the nearest of them.
  test.each([
    ["0", 0, 0],
    ["EPERM", 1, 1],
    ["EIO", 5, 5],
    ["ENOMEM", 12, 12],
    ["EINVAL", 22, 22],
    ["ENOSPC", 28, 28],
    ["EOVERFLOW", 75, 75],
    ["EOPNOTSUPP", 95, 95],
    ["ESHUTDOWN", 108, 108],
    ["EROFS", 30, 1],
    ["EACCES", 13, 1],
    ["EDQUOT", 122, 28],
    ["EFBIG", 27, 28],
    ["ENOENT", 2, 5],
    ["ENXIO", 6, 5],
    ["EAGAIN", 11, 5],
    ["ETIMEDOUT", 110, 5],
    ["a number that is no errno", 4_000, 5],
  ])("%s", (_, number, wire) => {
    expect(wireError(number)).toBe(wire);
  });

  test("whatever the errno, it is one of the nine that a peer knows, and 0 only for 0", () => {
    const known = new Set([1, 5, 12, 22, 28, 75, 95, 108]);
    for (let number = 1; number < 5_000; number += 1) expect(known.has(wireError(number))).toBe(true);
  });
});
