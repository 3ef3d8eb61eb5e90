/** The overlay of a copy-on-write layer in a file: it continues, survives a crash, and is never mistaken. */
import { describe, expect, test } from "bun:test";
import { copyFileSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { cowLayer } from "../../../src/layers/cow.ts";
import { base, BLOCK, changed, contents, DATA, PLAIN, SIZE } from "../../support/cow-base.ts";
import { userError } from "../../support/failure.ts";
import { pattern } from "../../support/random.ts";
import { Shadow } from "../../support/shadow.ts";
import { TemporaryDirectory } from "../../support/temporary.ts";

/** A directory, and the name of an overlay in it. */
function setUp(): { directory: TemporaryDirectory; file: string } & Disposable {
  const directory = new TemporaryDirectory();
  return {
    directory,
    file: directory.join("overlay"),
    [Symbol.dispose]: () => directory[Symbol.dispose](),
  };
}

const FOREIGN = "is not an overlay of tsbuse: give another name, or remove it first";

describe("an overlay file", () => {
  test("has after a crash what was flushed", async () => {
    using place = setUp();
    const copy = place.directory.join("copy");
    const cow = cowLayer({ file: place.file })(base());
    const source = pattern(8192, 3);
    void cow.write?.(source, BLOCK, PLAIN);
    copyFileSync(place.file, copy);
    const before = cowLayer({ file: copy })(base());
    expect(Buffer.compare(await contents(before), DATA)).toBe(0);
    await before.close?.();
    void cow.flush?.();
    copyFileSync(place.file, copy);
    const after = cowLayer({ file: copy })(base());
    const expected = changed((bytes) => bytes.set(source, BLOCK));
    expect(Buffer.compare(await contents(after), expected)).toBe(0);
    await after.close?.();
    await cow.close?.();
  });

  test("is continued when it is opened again, also by one that was not flushed before it was closed", async () => {
    using place = setUp();
    for (const byte of [1, 2]) {
      const cow = cowLayer({ file: place.file })(base());
      void cow.write?.(new Uint8Array(BLOCK).fill(byte), byte * BLOCK, PLAIN);
      await cow.close?.();
    }
    const again = cowLayer({ file: place.file })(base());
    const expected = changed((bytes) => bytes.fill(1, BLOCK, 2 * BLOCK).fill(2, 2 * BLOCK, 3 * BLOCK));
    expect(Buffer.compare(await contents(again), expected)).toBe(0);
    await again.close?.();
  });

  test("is sparse: it takes what was written, and gives back what was trimmed", async () => {
    using place = setUp();
    const size = 2 ** 36;
    const cow = cowLayer({ file: place.file })({ size, read: (target) => void target.fill(1) });
    const mib = pattern(2 ** 20);
    for (let at = 0; at < 16; at += 1) void cow.write?.(mib, at * 2 ** 32, PLAIN);
    void cow.flush?.();
    const full = statSync(place.file).blocks * 512;
    expect(full).toBeWithin(16 * 2 ** 20, 20 * 2 ** 20);
    for (let at = 0; at < 16; at += 1) void cow.trim?.(at * 2 ** 32, 2 ** 20, PLAIN);
    expect(statSync(place.file).blocks * 512).toBeLessThan(full - 15 * 2 ** 20);
    await cow.close?.();
  });

  test("that another process has is refused", async () => {
    using place = setUp();
    const cow = cowLayer({ file: place.file })(base());
    expect(userError(() => cowLayer({ file: place.file })(base()))).toBe(
      `${place.file} is the overlay of another process: detach its device first`,
    );
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
      "is an overlay that is damaged: restore it, or remove it first",
    ],
    [
      "of a later version",
      (path) => writeFileSync(path, readFileSync(path).fill(2, 16, 17)),
      "is an overlay of version 2, this tsbuse knows 1: use the one it was made with",
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
