/** The loop device on files: writes reach the file, and trimmed ranges become holes. */
import { describe, expect, test } from "bun:test";
import { readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { Loop, type LoopOptions } from "../../devices/loop.ts";
import { Memory } from "../../src/libc/memory.ts";
import { errnoFailure } from "../support/failure.ts";
import { CAP_SYS_ADMIN, hasCapability } from "../support/privileges.ts";
import { pattern } from "../support/random.ts";
import { hasDirectIo, TemporaryDirectory } from "../support/temporary.ts";

const MIB = 2 ** 20;
const PLAIN = { fua: false };
const FUA = { fua: true };
const BOTH = [
  ["without FUA", PLAIN],
  ["with FUA", FUA],
] as const;
const DATA = pattern(4 * MIB);
/** st_blocks counts these. */
const STAT_BLOCK = 512;
/** The space that a file system may need to map a file with a hole, in bytes. */
const METADATA = 64 * 1024;

/** A file of its own, full of DATA unless it is made by the device. */
class LoopFile implements AsyncDisposable {
  readonly #directory: TemporaryDirectory;
  readonly path: string;
  readonly device: Loop;

  constructor(options: LoopOptions = {}, parent?: string) {
    this.#directory = new TemporaryDirectory(parent);
    this.path = this.#directory.join("image");
    if (options.create === undefined) writeFileSync(this.path, DATA);
    this.device = new Loop(this.path, options);
  }

  /** The file's bytes. */
  get bytes(): Uint8Array {
    return readFileSync(this.path);
  }

  /** The space that the file takes once it is written, in bytes. */
  async allocated(): Promise<number> {
    await this.device.flush?.();
    return statSync(this.path).blocks * STAT_BLOCK;
  }

  /** `length` bytes of the device. */
  async read(offset: number, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    await this.device.read(bytes, offset);
    return bytes;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.device.close();
    this.#directory[Symbol.dispose]();
  }
}

/** DATA with one range replaced. */
function dataWith(bytes: Uint8Array, offset: number): Uint8Array {
  const copy = DATA.slice();
  copy.set(bytes, offset);
  return copy;
}

function same(one: Uint8Array, other: Uint8Array): boolean {
  return Buffer.compare(one, other) === 0;
}

test("after a flush that failed in the process before, none succeeds in the next one either", async () => {
  await using file = new LoopFile({ hasLost: true });
  const { device } = file;
  expect(device.hasLost).toBe(true);
  expect((await errnoFailure(() => device.flush?.())).code).toBe("EIO");
  await device.write?.(DATA.subarray(0, 4096), 0, PLAIN);
});

describe("a file", () => {
  test("is read as it is, to its last block", async () => {
    await using file = new LoopFile();
    expect(file.device.size).toBe(4 * MIB);
    expect(file.device.blockSize).toBe(512);
    expect(same(await file.read(0, 4 * MIB), DATA)).toBe(true);
    expect(await file.read(4 * MIB - 512, 512)).toEqual(DATA.slice(-512));
    expect(file.device.created).toBe(false);
  });

  test.each(BOTH)("has what was written %s, and nothing else changes", async (_, options) => {
    await using file = new LoopFile();
    const bytes = pattern(12_288, 7);
    await file.device.write?.(bytes, 512, options);
    expect(same(file.bytes, dataWith(bytes, 512))).toBe(true);
    await file.device.write?.(bytes.subarray(0, 512), 4 * MIB - 512, options);
    await file.device.flush?.();
    expect(file.bytes.subarray(-512)).toEqual(bytes.subarray(0, 512));
    expect(file.bytes.length).toBe(4 * MIB);
  });

  test.each(BOTH)(
    "gets a hole where it is trimmed, and from zeroes that may be one, %s",
    async (_, options) => {
      await using file = new LoopFile();
      const before = await file.allocated();
      await file.device.trim?.(0, MIB, options);
      await file.device.writeZeroes?.(2 * MIB, MIB, { ...options, mayTrim: true });
      expect(before - (await file.allocated())).toBeGreaterThan(2 * MIB - METADATA);
      const expected = dataWith(new Uint8Array(MIB), 0);
      expect(same(file.bytes, expected.fill(0, 2 * MIB, 3 * MIB))).toBe(true);
    },
  );

  test.each(BOTH)("keeps its space under zeroes that may be no hole, %s", async (_, options) => {
    await using file = new LoopFile();
    const before = await file.allocated();
    await file.device.writeZeroes?.(MIB + 512, 2 * MIB + 512, { ...options, mayTrim: false });
    expect(await file.allocated()).toBeGreaterThanOrEqual(before);
    expect(same(file.bytes, dataWith(new Uint8Array(2 * MIB + 512), MIB + 512))).toBe(true);
  });

  test("read-only has no method that changes it", async () => {
    await using file = new LoopFile({ readOnly: true });
    const { device } = file;
    expect([device.write, device.flush, device.trim, device.writeZeroes]).toEqual([
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
    expect(same(await file.read(0, 4 * MIB), DATA)).toBe(true);
  });
});

const SHM = Bun.spawnSync(["stat", "--file-system", "--format=%T", "/dev/shm"]).stdout.toString().trim();

test("a resize without a size takes in what the file has grown by, and nothing behind the part that is served", async () => {
  await using whole = new LoopFile();
  truncateSync(whole.path, 8 * MIB);
  whole.device.resize(undefined);
  expect(whole.device.size).toBe(8 * MIB);
  await using part = new LoopFile({ offset: MIB, size: MIB });
  expect(() => part.device.resize(undefined)).toThrow("give SIZE to change it");
  part.device.resize(2 * MIB);
  expect(part.device.size).toBe(2 * MIB);
});

test.skipIf(SHM !== "tmpfs")(
  "zeroes are written out where fallocate cannot (skipped where /dev/shm is no tmpfs)",
  async () => {
    await using file = new LoopFile({}, "/dev/shm");
    const before = await file.allocated();
    // More than two of the pieces in which zeroes are written, and a remainder.
    const zeroes = new Uint8Array(2 * MIB + 1536);
    await file.device.writeZeroes?.(512, zeroes.length, { fua: true, mayTrim: false });
    expect(same(file.bytes, dataWith(zeroes, 512))).toBe(true);
    expect(await file.allocated()).toBeGreaterThanOrEqual(before);
  },
);

describe("a window of a file", () => {
  const WINDOW = { offset: 4096 + 512, size: 64 * 1024 };

  test("shows its part alone", async () => {
    await using file = new LoopFile(WINDOW);
    expect(file.device.size).toBe(65_536);
    expect(same(await file.read(0, 65_536), DATA.subarray(4608, 4608 + 65_536))).toBe(true);
  });

  test("without a size ends with the file", async () => {
    await using file = new LoopFile({ offset: 4 * MIB - 1024 });
    expect(file.device.size).toBe(1024);
    expect(await file.read(512, 512)).toEqual(DATA.slice(-512));
  });

  test.each<[string, (device: Loop) => unknown]>([
    ["write", (device) => device.write?.(new Uint8Array(65_536), 0, PLAIN)],
    ["trim", (device) => device.trim?.(0, 65_536, PLAIN)],
    ["writeZeroes", (device) => device.writeZeroes?.(0, 65_536, { fua: false, mayTrim: true })],
    ["zeroes in place", (device) => device.writeZeroes?.(0, 65_536, { fua: true, mayTrim: false })],
  ])("%s of all of it leaves what is around it alone", async (_, action) => {
    await using file = new LoopFile(WINDOW);
    await action(file.device);
    expect(same(file.bytes, dataWith(new Uint8Array(65_536), 4608))).toBe(true);
  });
});

describe("a file that is made", () => {
  test("is sparse, zero, private, and kept afterwards", async () => {
    await using file = new LoopFile({ create: 2 ** 33 });
    expect(file.device.size).toBe(2 ** 33);
    expect(file.device.created).toBe(true);
    expect(await file.allocated()).toBeLessThan(MIB);
    expect(statSync(file.path).mode & 0o777).toBe(0o600);
    await file.device.write?.(DATA.subarray(0, 4096), 2 ** 33 - 4096, PLAIN);
    expect(await file.read(2 ** 33 - 4096, 4096)).toEqual(DATA.slice(0, 4096));
    expect(await file.read(2 ** 32, 4096)).toEqual(new Uint8Array(4096));
    expect(statSync(file.path).size).toBe(2 ** 33);
  });
});

const HAS_DIRECT = hasDirectIo();

describe.skipIf(!HAS_DIRECT)("direct I/O (skipped where the file system has none)", () => {
  test("reads and writes aligned memory, in blocks that the file system works in", async () => {
    await using file = new LoopFile({ direct: true });
    const { device } = file;
    expect([512, 1024, 2048, 4096]).toContain(device.blockSize);
    const memory = new Memory(2 * MIB);
    const bytes = memory.bytes();
    await device.read(bytes.subarray(0, MIB), MIB);
    expect(same(bytes.subarray(0, MIB), DATA.subarray(MIB, 2 * MIB))).toBe(true);
    bytes.set(DATA.subarray(0, 8192));
    await device.write?.(bytes.subarray(0, 8192), 4096, FUA);
    await device.writeZeroes?.(2 * MIB, MIB, { fua: false, mayTrim: false });
    memory.close();
    const expected = dataWith(DATA.subarray(0, 8192), 4096);
    expected.fill(0, 2 * MIB, 3 * MIB);
    expect(same(file.bytes, expected)).toBe(true);
  });
});

describe("failures of a file in use", () => {
  test("a file that became shorter is EIO, and what is left is still read", async () => {
    await using file = new LoopFile();
    truncateSync(file.path, MIB + 512);
    const error = await errnoFailure(() => file.read(MIB, 1024));
    expect(error.code).toBe("EIO");
    expect(error.message).toBe(`${file.path} is shorter than when it was attached`);
    expect((await errnoFailure(() => file.read(2 * MIB, 512))).code).toBe("EIO");
    expect(await file.read(MIB, 512)).toEqual(DATA.slice(MIB, MIB + 512));
  });

  const CAN_MOUNT = hasCapability(CAP_SYS_ADMIN) && Bun.which("mount") !== null;

  test.skipIf(!CAN_MOUNT)("a file system that is full is ENOSPC (needs root: mounts a tmpfs)", async () => {
    using directory = new TemporaryDirectory();
    const mount = Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", directory.path]);
    expect(mount.stderr.toString()).toBe("");
    try {
      const device = new Loop(directory.join("image"), { create: 4 * MIB });
      const error = await errnoFailure(() => device.write?.(DATA.subarray(0, 2 * MIB), 0, PLAIN));
      expect(error.code).toBe("ENOSPC");
      expect(error.message).toContain("No space left on device");
      const zeroes = { fua: false, mayTrim: false };
      expect((await errnoFailure(() => device.writeZeroes?.(2 * MIB, MIB, zeroes))).code).toBe("ENOSPC");
      // The device continues: a trim makes room.
      await device.trim?.(0, 4 * MIB, PLAIN);
      await device.write?.(DATA.subarray(0, 4096), 0, PLAIN);
      await device.close();
    } finally {
      // Lazily, since a test that fails leaves the file open.
      expect(Bun.spawnSync(["umount", "-l", directory.path]).exitCode).toBe(0);
    }
  });
});
