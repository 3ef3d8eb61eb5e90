/** The wrappers of the C library: errno, and what lies in memory for C to read. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { cString } from "../../src/libc/address.ts";
import { errorText, negativeErrno, unwrap } from "../../src/libc/errno.ts";
import * as file from "../../src/libc/file.ts";
import { IovecTable } from "../../src/libc/iovec.ts";
import { copy, Memory } from "../../src/libc/memory.ts";
import { symbols } from "../../src/libc/symbols.ts";
import { O_CREAT, O_EXCL, O_RDONLY, O_RDWR } from "../../src/uapi/fcntl.ts";
import { errno } from "../../src/uapi/errno.ts";
import { errnoError } from "../support/failure.ts";
import { hex } from "../support/golden.ts";
import { pattern } from "../support/random.ts";
import { sh } from "../support/shell.ts";
import { TemporaryDirectory } from "../support/temporary.ts";

const { ENOENT, EBADF, EEXIST } = errno;

test("each function is in glibc 2.17, the oldest that README names (needs binutils)", async () => {
  const library = /\S+\/libc\.so\.6$/m.exec(readFileSync("/proc/self/maps", "utf8"))?.[0];
  const listing = await sh(`nm --dynamic --defined-only --with-symbol-versions '${library}'`);
  const versions = new Map<string, number>();
  for (const [, name = "", minor] of listing.matchAll(/ (\w+)@@?GLIBC_2\.(\d+)/g))
    versions.set(name, Math.min(Number(minor), versions.get(name) ?? Infinity));
  const tooNew = Object.keys(symbols).filter((name) => (versions.get(name) ?? Infinity) > 17);
  expect(tooNew).toEqual([]);
});

describe("errno", () => {
  test("a failure's own number comes back, whatever other calls there are in between", () => {
    using directory = new TemporaryDirectory();
    const path = directory.join("there");
    const target = new Uint8Array(16);
    for (let round = 0; round < 1000; round += 1) {
      expect(file.open(directory.join("missing"), O_RDONLY)).toBe(-ENOENT);
      expect(file.close(-1)).toBe(-EBADF);
      const fd = file.open(path, round === 0 ? O_RDWR | O_CREAT : O_RDWR, 0o600);
      expect(fd).toBeGreaterThan(0);
      expect(file.open(path, O_RDWR | O_CREAT | O_EXCL)).toBe(-EEXIST);
      expect(file.pread(fd, target, 0)).toBe(0);
      expect(file.pread(-1, target, 0)).toBe(-EBADF);
      expect(file.close(fd)).toBe(0);
    }
  });

  test("a result that is no failure is unchanged, and a number in either case", () => {
    expect([negativeErrno(0), negativeErrno(7), negativeErrno(2 ** 47), negativeErrno(7n)]).toEqual([
      0,
      7,
      2 ** 47,
      7,
    ]);
    file.close(-1);
    expect(negativeErrno(-1n)).toBe(-EBADF);
  });

  test("unwrap gives the result, or throws with what was tried and why it failed", () => {
    expect([unwrap(0, "x"), unwrap(5, "x")]).toEqual([0, 5]);
    const error = errnoError(() => unwrap(-ENOENT, "open /nowhere"));
    expect(error).toMatchObject({ errno: ENOENT, code: "ENOENT" });
    expect(error.message).toBe("open /nowhere: No such file or directory");
  });

  test("errorText is the C library's", () => {
    expect([errorText(5), errorText(28)]).toEqual(["Input/output error", "No space left on device"]);
  });
});

describe("a table of iovecs", () => {
  test("lies in memory as C reads it", () => {
    const table = new IovecTable(2);
    table.push(0x7fff_1234_5678, 0x200);
    table.push(0x1_0000_0001, 0x2_0000_0003);
    // Two little-endian 64-bit numbers each.
    const golden = hex("78563412ff7f0000 0002000000000000 0100000001000000 0300000002000000");
    expect(Buffer.compare(Buffer.from(table.words.buffer), golden)).toBe(0);
    expect([table.count, table.full]).toEqual([2, true]);
  });

  test.each([0, 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 2 ** 47 - 1, 2 ** 53 - 1])(
    "keeps the address %d",
    (address) => {
      const table = new IovecTable(3);
      table.push(1, 2);
      table.push(address, address);
      table.push(3, 4);
      expect([table.address(1), table.length(1)]).toEqual([address, address]);
      expect([table.address(0), table.length(0), table.address(2), table.length(2)]).toEqual([1, 2, 3, 4]);
    },
  );

  test("is filled again after clear", () => {
    const table = new IovecTable(1);
    table.push(1, 2);
    table.clear();
    expect([table.count, table.full]).toEqual([0, false]);
    table.push(5, 6);
    table.set(0, 7, 8);
    expect([table.count, table.address(0), table.length(0)]).toEqual([1, 7, 8]);
  });
});

test("a C string is UTF-8 with one NUL at its end, and cannot hold another", () => {
  expect(cString("dé")).toEqual(Uint8Array.of(0x64, 0xc3, 0xa9, 0));
  expect(cString("")).toEqual(Uint8Array.of(0));
  expect(() => cString("a\0b")).toThrow("NUL");
});

describe("memory", () => {
  test("beyond what a process can address is ENOMEM", () => {
    const error = errnoError(() => new Memory(2 ** 48));
    expect(error.code).toBe("ENOMEM");
    expect(error.message).toBe("mmap of 281474976710656 bytes: Cannot allocate memory");
  });

  test("beyond 4 GiB does not fit one view, up to there it does", () => {
    const [large, larger] = [new Memory(2 ** 32), new Memory(2 ** 32 + 4096)];
    expect(large.bytes()).toHaveLength(2 ** 32);
    expect(() => larger.bytes()).toThrow(RangeError);
    large.close();
    larger.close();
  });

  test("is copied between addresses, and shown by its view", () => {
    const memory = new Memory(8192);
    const bytes = pattern(1000);
    memory.write(bytes, 100);
    copy(memory.address + 5000, memory.address + 100, 1000);
    const view = memory.bytes();
    expect(view.slice(5000, 6000)).toEqual(bytes);
    expect([view[4999], view[6000]]).toEqual([0, 0]);
    memory.close();
  });
});
