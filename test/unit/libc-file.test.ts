/** Files, nodes and attributes, through the C library. */
import { describe, expect, test } from "bun:test";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { blockDeviceSize, isReadOnlyBlockDevice } from "../../src/libc/block.ts";
import { unwrap } from "../../src/libc/errno.ts";
import * as file from "../../src/libc/file.ts";
import { deviceNumbers, readAttribute, readNumber } from "../../src/libc/sysfs.ts";
import { O_CREAT, O_RDONLY, O_RDWR } from "../../src/uapi/fcntl.ts";
import { S_IFBLK, S_IFCHR } from "../../src/uapi/unistd.ts";
import { errnoError } from "../support/failure.ts";
import { CAP_MKNOD, hasCapability } from "../support/privileges.ts";
import { pattern } from "../support/random.ts";
import { TemporaryDirectory } from "../support/temporary.ts";

const EAGAIN = 11;
const EEXIST = 17;

describe("files", () => {
  test("are opened close-on-exec", () => {
    const fd = file.open("/dev/null", O_RDONLY);
    const flags = /^flags:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"))?.[1] ?? "";
    file.close(fd);
    expect(Number.parseInt(flags, 8) & 0o2000000).toBe(0o2000000);
  });

  test("are written and read at offsets beyond 4 GiB, plainly and through to the disk", () => {
    using directory = new TemporaryDirectory();
    const path = directory.join("file");
    const fd = unwrap(file.open(path, O_RDWR | O_CREAT, 0o600), "open");
    const bytes = pattern(8192);
    const at = 2 ** 32 + 4096;
    expect(file.pwrite(fd, bytes.subarray(0, 4096), at)).toBe(4096);
    expect(file.pwriteDsync(fd, bytes.subarray(4096), at + 4096)).toBe(4096);
    expect(statSync(path).size).toBe(at + 8192);
    const target = new Uint8Array(8192);
    expect(file.pread(fd, target, at)).toBe(8192);
    expect(target).toEqual(bytes);
    // Short at the end of the file.
    expect(file.pread(fd, target, at + 8192 - 100)).toBe(100);
    expect([file.fsync(fd), file.fdatasync(fd), file.syncfs(fd)]).toEqual([0, 0, 0]);
    expect([file.ftruncate(fd, 2 ** 33), statSync(path).size]).toEqual([0, 2 ** 33]);
    file.close(fd);
  });

  test("are locked against others", () => {
    using directory = new TemporaryDirectory();
    const path = directory.join("file");
    writeFileSync(path, "");
    const [one, other] = [file.open(path, O_RDWR), file.open(path, O_RDWR)];
    const exclusiveNow = 2 | 4;
    expect([file.flock(one, exclusiveNow), file.flock(other, exclusiveNow)]).toEqual([0, -EAGAIN]);
    file.close(one);
    expect(file.flock(other, exclusiveNow)).toBe(0);
    file.close(other);
  });

  test("that are no block devices have none of their numbers", () => {
    const fd = file.open("/dev/null", O_RDONLY);
    for (const ask of [blockDeviceSize, isReadOnlyBlockDevice]) {
      expect(errnoError(() => ask(fd)).code).toBe("ENOTTY");
    }
    file.close(fd);
  });

  test.skipIf(!hasCapability(CAP_MKNOD)).each([
    ["block", S_IFBLK],
    ["character", S_IFCHR],
  ] as const)("can be nodes of %s devices (needs root: mknod)", (kind, type) => {
    using directory = new TemporaryDirectory();
    const path = directory.join("node");
    // Numbers of more than 8 and of more than 20 bits.
    expect(file.mknod(path, type, 0x7ab, 0x4_5678)).toBe(0);
    const stats = statSync(path);
    expect(stats.mode & 0o777).toBe(0o600);
    expect([stats.isBlockDevice(), stats.isCharacterDevice()]).toEqual([
      kind === "block",
      kind === "character",
    ]);
    expect(deviceNumbers(stats.rdev)).toEqual({ major: 0x7ab, minor: 0x4_5678 });
    expect(file.mknod(path, type, 1, 1)).toBe(-EEXIST);
  });
});

test("device numbers are taken apart as makedev(3) puts them together", () => {
  expect(deviceNumbers(statSync("/dev/null").rdev)).toEqual({ major: 1, minor: 3 });
  expect(deviceNumbers(0x2b05)).toEqual({ major: 43, minor: 5 });
  expect(deviceNumbers(0x1234_5001_2305)).toEqual({ major: 0x1123, minor: 0x2345_0005 });
});

test("an attribute is its text without the line's end; one that is not there is undefined", () => {
  using directory = new TemporaryDirectory();
  writeFileSync(directory.join("number"), "512\n");
  expect([readAttribute(directory.join("number")), readNumber(directory.join("number"))]).toEqual([
    "512",
    512,
  ]);
  expect([readAttribute(directory.join("no")), readNumber(directory.join("no"))]).toEqual([
    undefined,
    undefined,
  ]);
});
