/** The codec against bytes written out by hand from the NBD specification, "Transmission". */
import { describe, expect, test } from "bun:test";
import { putReply, wireError } from "../../../../src/nbd/wire/codec.ts";
import { RequestHeader } from "../../../../src/nbd/wire/request-header.ts";
import { errno } from "../../../../src/uapi/errno.ts";
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

  // Flags, type, offset and length: the flags stay in the upper half of the word, where <linux/nbd.h> has them.
  test.each([
    ["0000", "ffff", "0000000000000000", "00000000", { flags: 0, command: 65_535, offset: 0, length: 0 }],
    ["0001", "0001", "0000000000000200", "02000000", { flags: 0x1_0000, command: 1, offset: 512 }],
    ["8000", "0000", "00000000fffffe00", "80000000", { flags: 0x8000_0000, length: 2 ** 31 }],
    ["ffff", "0000", "0000000100000000", "ffffffff", { flags: 0xffff_0000, length: 2 ** 32 - 1 }],
    ["0000", "0000", "0000010000000200", "00000000", { offset: 2 ** 40 + 512 }],
    ["0000", "0000", "001ffffffffffe00", "00000000", { offset: 2 ** 53 - 512 }],
    ["0000", "0000", "0020000000000000", "00000000", { offset: 2 ** 53 }],
  ])("flags %s, type %s, offset %s, length %s", (flags, type, offset, length, expected) => {
    const decoded = decode(`25609513 ${flags} ${type} 0000000000000000 ${offset} ${length}`);
    expect(decoded).toMatchObject(expected);
  });

  test("offset 2^64 - 1 is beyond every device", () => {
    const { offset } = decode("25609513 0000 0000 0000000000000000 ffffffffffffffff 00000000");
    expect(offset).toBeGreaterThanOrEqual(18_446_744_073_709_549_568);
  });
});

describe("a reply", () => {
  test.each([
    ["success", 0, "0000000000000000", "67446698 00000000 0000000000000000"],
    ["an error", 28, "0102030405060708", "67446698 0000001c 0102030405060708"],
    ["a cookie of ones", 5, "ffffffffffffffff", "67446698 00000005 ffffffffffffffff"],
    ["a cookie of two negative halves", 108, "80000001f0000002", "67446698 0000006c 80000001f0000002"],
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
    [0, [0]],
    [1, [errno.EPERM, errno.EROFS, errno.EACCES]],
    [5, [errno.EIO, errno.ENOENT, errno.ENXIO, errno.EAGAIN, errno.ETIMEDOUT, 4000]],
    [12, [errno.ENOMEM]],
    [22, [errno.EINVAL]],
    [28, [errno.ENOSPC, errno.EDQUOT, errno.EFBIG]],
    [75, [errno.EOVERFLOW]],
    [95, [errno.EOPNOTSUPP]],
    [108, [errno.ESHUTDOWN]],
  ])("%d is that of %p", (wire, numbers) => {
    for (const number of numbers) expect([number, wireError(number)]).toEqual([number, wire]);
  });

  test("whatever the errno, it is one of the nine that a peer knows, and 0 only for 0", () => {
    const known = new Set([1, 5, 12, 22, 28, 75, 95, 108]);
    for (let number = 1; number < 5_000; number += 1) expect(known.has(wireError(number))).toBe(true);
  });
});
