/** Goal: the changes that a copy-on-write layer holds in memory survive when another process takes the device over. */
import { expect, test } from "bun:test";
import { fstatSync } from "node:fs";
import type { BlockDevice } from "../../../src/device.ts";
import { cowLayer, openShared } from "../../../src/layers/cow.ts";
import { MemoryFiles } from "../../../src/layers/memory-files.ts";
import { OtherProcess } from "../../../src/libc/pidfd.ts";
import { base, BLOCK, changed, contents, HOLE, PLAIN, SIZE } from "../../support/cow-base.ts";
import { userError, userFailure } from "../../support/failure.ts";
import { pattern } from "../../support/random.ts";

const MIB = 2 ** 20;
const cowIn = (files: MemoryFiles, below: BlockDevice): BlockDevice =>
  cowLayer({}, { files: () => files })(below);

/** The files as another process gets them. */
function handOver({ fds }: MemoryFiles): MemoryFiles {
  using self = new OtherProcess(process.pid);
  const copies = new Map(Object.entries(fds).map(([name, fd]) => [name, self.descriptor(fd)]));
  return new MemoryFiles((name) => copies.get(name));
}

test("changes are the other process's as well, from the first to the last", async () => {
  const files = new MemoryFiles();
  const shared = { kind: "loop", state: "it" } as const;
  const below = Object.assign(base(), {
    shared,
    extents: () => [{ length: SIZE, hole: false, zero: false }],
  });
  const first = cowIn(files, below);
  await first.prepare?.();
  await first.write?.(pattern(3 * BLOCK, 5), 512, PLAIN);
  const second = cowIn(handOver(files), base());
  // This still holds until the first one lets go.
  await first.write?.(pattern(BLOCK, 6), 512, PLAIN);
  await first.trim?.(8192, 4096, PLAIN);
  await second.prepare?.();
  const expected = changed((bytes) => {
    bytes.set(pattern(3 * BLOCK, 5), 512);
    bytes.set(pattern(BLOCK, 6), 512);
    bytes.fill(0, 8192, 12_288);
  });
  expect(await contents(second)).toEqual(expected);
  // It was served for a moment, and given back.
  await second.write?.(pattern(BLOCK, 7), 4 * BLOCK, PLAIN);
  await second.close?.();
  expected.set(pattern(BLOCK, 7), 4 * BLOCK);
  expect(await contents(first)).toEqual(expected);

  const thread = openShared(first.shared?.state, (of) => {
    expect(of).toEqual(shared);
    return base();
  });
  expect(await contents(thread)).toEqual(expected);
  await thread.close?.();
  expect(await contents(first)).toEqual(expected);
  await first.close?.();
  expect(() => first.extents?.(0, BLOCK)).toThrow("the overlay is closed");
});

test("another device, another size and what nobody has left are refused", async () => {
  const files = new MemoryFiles();
  const first = cowIn(files, Object.assign(base(), { identity: "golden" }));
  await first.prepare?.();
  const changedBase = { size: SIZE, identity: "golden", read: (target: Uint8Array) => void target.fill(1) };
  for (const below of [changedBase, Object.assign(base(), { identity: "a copy" }), base()]) {
    const other = cowIn(handOver(files), below);
    expect(await userFailure((async () => other.prepare?.())())).toContain("of another device");
  }
  expect(userError(() => cowIn(handOver(files), { size: 2 * SIZE, read: () => undefined }))).toContain(
    "of another size",
  );
  const none = new MemoryFiles(() => undefined);
  expect(userError(() => cowIn(none, base()))).toContain("keeps nothing in memory for the layer cow");
});

test("reading what was trimmed takes no memory", async () => {
  const files = new MemoryFiles();
  const cow = cowIn(files, { size: 16 * MIB, read: (target) => void target.fill(1) });
  await cow.write?.(pattern(MIB, 1), 0, PLAIN);
  await cow.trim?.(0, MIB, PLAIN);
  await cow.writeZeroes?.(0, 16 * MIB, HOLE);
  expect(await contents(cow, 16 * MIB)).toEqual(new Uint8Array(16 * MIB));
  const blocks = Object.entries(files.fds).find(([name]) => name.endsWith(".blocks"))?.[1];
  expect(fstatSync(blocks ?? -1).blocks).toBe(0);
  await cow.close?.();
});
