/** The overlay of a copy-on-write layer in a file: it continues, survives a crash, and refuses another base. */
import { describe, expect, test } from "bun:test";
import {
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { Loop } from "../../../devices/loop.ts";
import type { BlockDevice } from "../../../src/device.ts";
import { cowLayer } from "../../../src/layers/cow.ts";
import { applyLayers } from "../../../src/layers/layer.ts";
import { statsLayer } from "../../../src/layers/stats.ts";
import { FileStorage } from "../../../src/layers/overlay-storage.ts";
import { Memory } from "../../../src/libc/memory.ts";
import { AsyncStore } from "../../support/async-devices.ts";
import { base, BLOCK, changed, contents, DATA, PLAIN, SIZE } from "../../support/cow-base.ts";
import { userError, userFailure } from "../../support/failure.ts";
import { pattern } from "../../support/random.ts";
import { Shadow } from "../../support/shadow.ts";
import { hasDirectIo, TemporaryDirectory } from "../../support/temporary.ts";

/** A directory, and the name of an overlay in it. */
function setUp(): { directory: TemporaryDirectory; file: string } & Disposable {
  const directory = new TemporaryDirectory();
  return {
    directory,
    file: directory.join("overlay"),
    [Symbol.dispose]: () => directory[Symbol.dispose](),
  };
}

const BIG = 2 ** 22;

/** Changes one byte of the base, unless `at` is 0. */
function changedBase<Device extends { readonly bytes: Uint8Array }>(device: Device, at: number): Device {
  if (at > 0) device.bytes[at] = 1;
  return device;
}

function alignedBytes(length: number): { readonly bytes: Uint8Array } & Disposable {
  const memory = new Memory(length);
  return { bytes: memory.bytes(), [Symbol.dispose]: () => memory.close() };
}

const FOREIGN = "is not an overlay of tsbuse: give another name, or remove it first";

describe("an overlay file", () => {
  test.each([
    ["a process that is killed", undefined, undefined],
    ["a crash of the system", 0x55, undefined],
    ["a move to another disk", undefined, existsSync("/dev/shm") ? "/dev/shm" : undefined],
  ])("has after %s what it should", async (_, boot, parent) => {
    using place = setUp();
    using elsewhere = new TemporaryDirectory(parent);
    const copy = elsewhere.join("copy");
    const survives =
      boot === undefined && statSync(elsewhere.path).dev === statSync(place.directory.path).dev;
    const cow = cowLayer({ file: place.file })(base());
    /** The file as a later process finds it. */
    const found = async (): Promise<Uint8Array> => {
      const bytes = readFileSync(place.file);
      if (boot !== undefined) bytes.fill(boot, 56, 72);
      writeFileSync(copy, bytes);
      const later = cowLayer({ file: copy })(base());
      const all = await contents(later);
      await later.close?.();
      return all;
    };
    const source = pattern(8192, 3);
    const written = changed((bytes) => bytes.set(source, BLOCK));
    void cow.write?.(source, BLOCK, PLAIN);
    expect(Buffer.compare(await found(), survives ? written : DATA)).toBe(0);
    void cow.flush?.();
    expect(Buffer.compare(await found(), written)).toBe(0);
    await cow.close?.();
  });

  test("is sparse: it takes what was written, and gives back what was trimmed", async () => {
    using place = setUp();
    const size = 2 ** 36;
    const cow = cowLayer({ file: place.file })({ size, read: (target) => void target.fill(1) });
    const mib = pattern(2 ** 20);
    for (let at = 0; at < 16; at += 1) void cow.write?.(mib, at * 2 ** 32, PLAIN);
    void cow.flush?.();
    const full = statSync(place.file).blocks * 512;
    // The data, and two maps of 2 MiB.
    expect(full).toBeWithin(20 * 2 ** 20, 21 * 2 ** 20);
    for (let at = 0; at < 16; at += 1) void cow.trim?.(at * 2 ** 32, 2 ** 20, PLAIN);
    expect(statSync(place.file).blocks * 512).toBeLessThan(full - 15 * 2 ** 20);
    await cow.close?.();
  });

  test("that is abandoned is closed, whatever becomes of its name", () => {
    using place = setUp();
    const storage = new FileStorage(place.file);
    const inode = statSync(place.file);
    rmSync(place.file);
    storage.abandon();
    const { dev, ino } = inode;
    for (const fd of readdirSync("/proc/self/fd")) {
      const stats = statSync(`/proc/self/fd/${fd}`, { throwIfNoEntry: false });
      expect(stats?.dev === dev && stats.ino === ino).toBe(false);
    }
  });

  test("that another process has is refused", async () => {
    using place = setUp();
    const cow = cowLayer({ file: place.file })(base());
    expect(userError(() => cowLayer({ file: place.file })(base()))).toBe(
      `${place.file} is the overlay of another process: detach its device first`,
    );
    await cow.close?.();
  });

  test("that another process hands over is opened once that has let go of it, with all that it had", async () => {
    using place = setUp();
    const first = cowLayer({ file: place.file })(base());
    const next = cowLayer({ file: place.file }, { takesOver: () => true })(base());
    expect(next.identity).toBe(first.identity);
    expect(() => next.read(new Uint8Array(BLOCK), 0)).toThrow("has not been opened yet");
    expect(await userFailure((async () => next.prepare?.())())).toContain(
      "is the overlay of another process",
    );
    await first.write?.(pattern(BLOCK, 3), BLOCK, PLAIN);
    await first.close?.();
    await next.prepare?.();
    expect(await contents(next)).toEqual(changed((bytes) => bytes.set(pattern(BLOCK, 3), BLOCK)));
    await next.close?.();
    expect(
      userError(() => cowLayer({ file: `${place.file}2` }, { takesOver: () => true })(base())),
    ).toContain("overlay2");
  });

  test.each<[string, (at: number) => BlockDevice]>([
    ["a synchronous device", (at) => changedBase(new Shadow(BIG), at)],
    ["an asynchronous device", (at) => changedBase(new AsyncStore(BIG), at)],
    ["a device under other layers", (at) => applyLayers(changedBase(new Shadow(BIG), at), [statsLayer()])],
  ])("over %s knows it again by what it holds", async (_, make) => {
    using place = setUp();
    const opened = async (at: number): Promise<void> => {
      const cow = cowLayer({ file: place.file })(make(at));
      await Promise.try(() => cow.prepare?.()).finally(() => cow.close?.());
    };
    await opened(0);
    await opened(0);
    // At the beginning, and in the last block.
    for (const at of [1, 66_000, BIG - 1])
      expect(await userFailure(opened(at))).toBe(
        `${place.file} is an overlay of a device with other contents: give the one it was made for`,
      );
    await opened(0);
  });

  test.skipIf(!hasDirectIo())("over a file that is read past the page cache", async () => {
    using place = setUp();
    const path = place.directory.join("base");
    writeFileSync(path, DATA.subarray(0, 16 * 4096));
    const cow = cowLayer({ file: place.file })(new Loop(path, { direct: true, readOnly: true }));
    await cow.prepare?.();
    const source = pattern(BLOCK, 4);
    for (const offset of [BLOCK, 3 * 4096 + BLOCK]) await cow.write?.(source, offset, PLAIN);
    using memory = alignedBytes(4096);
    for (const at of [0, 3 * 4096]) {
      await cow.read(memory.bytes, at);
      const expected = changed((bytes) => bytes.set(source, at + BLOCK)).subarray(at, at + 4096);
      expect(Buffer.compare(memory.bytes, expected)).toBe(0);
    }
    await cow.close?.();
  });

  test.each<[string, (path: string) => void, string, number?]>([
    [
      "of a device of another size",
      () => undefined,
      `is an overlay of a device of ${SIZE} bytes, this one has ${SIZE + BLOCK}: give the one it was made for`,
      SIZE + BLOCK,
    ],
    ["that is something else", (path) => writeFileSync(path, DATA), FOREIGN],
    ["that is shorter than any", (path) => writeFileSync(path, "tsbuse overlay"), FOREIGN],
    [
      "that was cut short",
      (path) => truncateSync(path, statSync(path).size - 1),
      "is a damaged overlay: restore it, or remove it first",
    ],
    [
      "of which little more than the header is left",
      (path) => truncateSync(path, 4096),
      "is a damaged overlay: restore it, or remove it first",
    ],
    [
      "of a later version",
      (path) => writeFileSync(path, readFileSync(path).fill(3, 16, 17)),
      "is an overlay of version 3, this tsbuse knows 1 to 2: use the one it was made with",
    ],
  ])("%s is refused, and left as it is", async (_, spoil, message, size = SIZE) => {
    using place = setUp();
    await cowLayer({ file: place.file })(base()).close?.();
    spoil(place.file);
    const before = readFileSync(place.file);
    expect(userError(() => cowLayer({ file: place.file })(new Shadow(size)))).toBe(
      `${place.file} ${message}`,
    );
    expect(readFileSync(place.file)).toEqual(before);
  });

  test.each([
    ["/tmp", "/tmp is not a regular file: give another name"],
    ["/nonexistent/o", "/nonexistent/o cannot be opened: its directory does not exist, make it first"],
  ])("that is no file is refused: %s", (file, message) => {
    expect(userError(() => cowLayer({ file })(base()))).toBe(message);
  });
});
