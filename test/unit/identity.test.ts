/** Goal: two devices have one identity only if they are the same, however each is made. */
import { describe, expect, test } from "bun:test";
import { type BigIntStats, linkSync, rmSync, statSync, writeFileSync } from "node:fs";
import { Deadbeef } from "../../devices/deadbeef.ts";
import { Loop } from "../../devices/loop.ts";
import { Ramdisk } from "../../devices/ramdisk.ts";
import type { BlockDevice } from "../../src/device.ts";
import { Dispatch, type DispatchOptions } from "../../src/dispatch.ts";
import { IDENTITY_MAX } from "../../src/identity.ts";
import { cowLayer } from "../../src/layers/cow.ts";
import { delayLayer } from "../../src/layers/delay.ts";
import { errorLayer } from "../../src/layers/error.ts";
import { applyLayers, type Layer } from "../../src/layers/layer.ts";
import { logLayer } from "../../src/layers/log.ts";
import { readonlyLayer } from "../../src/layers/readonly.ts";
import { statsLayer } from "../../src/layers/stats.ts";
import { SwappableDevice } from "../../src/module/swappable.ts";
import { TemporaryDirectory } from "../support/temporary.ts";

const SIZE = 64 * 1024;

async function identity(
  device: BlockDevice,
  layers: readonly Layer[] = [],
  options: DispatchOptions = {},
): Promise<string | undefined> {
  const layered = applyLayers(device, layers);
  try {
    return new Dispatch(layered, options).identity;
  } finally {
    await layered.close?.();
  }
}

const named = (own: string): BlockDevice => ({
  size: SIZE,
  identity: own,
  read: () => undefined,
  write: () => undefined,
});

test("is the same for the same file by another name, and another for each thing that differs", async () => {
  using directory = new TemporaryDirectory();
  const [file, link, other] = [directory.join("a"), directory.join("b"), directory.join("c")];
  writeFileSync(file, Buffer.alloc(SIZE));
  linkSync(file, link);
  writeFileSync(other, Buffer.alloc(SIZE));
  /** One after the other: the file is locked meanwhile. */
  const watched = async (): Promise<(string | undefined)[]> => {
    const found = [];
    for (const layer of [delayLayer({}), errorLayer({}), logLayer({}), statsLayer()])
      found.push(await identity(new Loop(file), [layer]));
    return found;
  };
  const cow = cowLayer({ file: directory.join("cow") });
  const first = await identity(new Loop(file));
  expect(first).toMatch(/^loop:\d+:\d+\/\d+(\/\d+)?@0 block=512 rw$/);
  expect(await identity(new Loop(link))).toBe(first);
  // A node that has another size by now is still of the same device.
  expect(await identity(new Loop(file, { size: 4096 }))).toBe(first);
  expect(await identity(new SwappableDevice(new Loop(file)))).toBe(first);
  const others = [
    await identity(new Loop(other)),
    await identity(new Loop(file, { offset: 4096 })),
    await identity(new Loop(file, { readOnly: true })),
    await identity(new Loop(file), [], { blockSize: 4096 }),
    await identity(new Loop(file), [], { origin: "/home/disk.ts" }),
    await identity(new Loop(file), [cow]),
    await identity(new Loop(file), [cow, readonlyLayer()]),
    await identity(new Loop(file), [readonlyLayer(), cow]),
    await identity(new Loop(file), [cowLayer({ file: directory.join("another cow") })]),
    ...(await watched()),
    await identity(new Deadbeef(SIZE)),
  ];
  expect(new Set([first, ...others]).size).toBe(others.length + 1);
  expect(others).not.toContain(undefined);
  expect(await identity(new Loop(link), [cowLayer({ file: directory.join("cow") })])).toBe(
    await identity(new Loop(file), [cow]),
  );
});

test("is another one for a file made later that has the inode of one removed", async () => {
  using directory = new TemporaryDirectory();
  const file = directory.join("a");
  const make = (): BigIntStats => {
    rmSync(file, { force: true });
    writeFileSync(file, Buffer.alloc(SIZE));
    return statSync(file, { bigint: true });
  };
  const first = make();
  const found = await identity(new Loop(file));
  // A file system may go by the ticks of a coarse clock.
  while (make().birthtimeNs === first.birthtimeNs && first.birthtimeNs > 0n) await Bun.sleep(1);
  const isSame = first.birthtimeNs === 0n && statSync(file, { bigint: true }).ino === first.ino;
  expect((await identity(new Loop(file))) === found).toBe(isSame);
});

test.each<[string, () => BlockDevice, readonly Layer[]]>([
  ["a RAM disk", () => new Ramdisk(SIZE), []],
  ["an empty text", () => named(""), []],
  ["a device that says nothing", () => ({ size: SIZE, read: () => undefined }), [statsLayer()]],
  ["changes in memory", () => named("it"), [cowLayer()]],
])("is not there for %s", async (_, make, layers) => {
  expect(await identity(make(), layers)).toBeUndefined();
});

describe("of a module", () => {
  test("is one line, whatever its path", async () => {
    expect(await identity(named("it"), [], { origin: "/a\n\u2028b" })).toBe(
      "/a%0A%E2%80%A8b:it block=512 rw",
    );
  });

  test.each([
    ["two lines", "a\nb"],
    ["a sequence for the terminal", "\u001b[2J"],
    ["what layers make too long", "x".repeat(IDENTITY_MAX)],
  ])("of %s becomes a hash", async (_, own) => {
    const found = await identity(named(own), [statsLayer()]);
    expect(found).toMatch(/^sha256:[0-9a-f]{64} block=512 rw$/);
    expect(await identity(named(own), [statsLayer()])).toBe(found);
    expect(await identity(named(`${own}x`), [statsLayer()])).not.toBe(found);
  });
});
