/** This project's own devices and layers under the adversary. The seed is new in every run and is printed. */
import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { Deadbeef } from "../../../devices/deadbeef.ts";
import { Loop } from "../../../devices/loop.ts";
import { Ramdisk } from "../../../devices/ramdisk.ts";
import { checkDevice, type CheckOptions, type MakeDevice } from "../../../src/check/check.ts";
import { cowLayer } from "../../../src/layers/cow.ts";
import { delayLayer } from "../../../src/layers/delay.ts";
import { errorLayer } from "../../../src/layers/error.ts";
import { applyLayers, type Layer } from "../../../src/layers/layer.ts";
import { logLayer } from "../../../src/layers/log.ts";
import { readonlyLayer } from "../../../src/layers/readonly.ts";
import { statsLayer } from "../../../src/layers/stats.ts";
import { SlowStore } from "../../support/async-devices.ts";
import { chooseSeed } from "../../support/random.ts";
import { hasDirectIo, TemporaryDirectory } from "../../support/temporary.ts";

const MIB = 2 ** 20;
/** Not a multiple of 4096. */
const ODD = 3 * MIB + 512;
const HAS_DIRECT = hasDirectIo();
const seed = chooseSeed("devices and layers");

async function expectRight(make: MakeDevice, options: CheckOptions = {}): Promise<void> {
  expect(await checkDevice(make, { seed, ops: 600, ...options })).toMatchObject({ seed, failure: undefined });
}

describe("devices", () => {
  test.each([4096, ODD, 64 * MIB])("a RAM disk of %d bytes", (size) => expectRight(() => new Ramdisk(size)));

  test.each([{ populate: true }, { hugePages: existsSync("/sys/kernel/mm/transparent_hugepage") }])(
    "a RAM disk with %o",
    (options) => expectRight(() => new Ramdisk(9 * MIB, options)),
  );

  test("a RAM disk of 16 GiB, with ranges of up to 4 GiB", () =>
    expectRight(() => new Ramdisk(16 * 2 ** 30), { ops: 300 }));

  test.each([512, ODD])("deadbeef of %d bytes", (size) => expectRight(() => new Deadbeef(size)));

  test("loop keeps what was flushed", async () => {
    using directory = new TemporaryDirectory();
    const path = directory.join("disk.img");
    await new Loop(path, { create: ODD }).close();
    await expectRight(() => new Loop(path), { persistent: true });
  });

  test.skipIf(!HAS_DIRECT)(
    "loop around the page cache (skipped where the file system has none)",
    async () => {
      using directory = new TemporaryDirectory();
      const path = directory.join("disk.img");
      await new Loop(path, { create: 3 * MIB + 4096 }).close();
      await expectRight(() => new Loop(path, { direct: true }), { persistent: true });
    },
  );

  test("a device that returns promises, many at once", async () => {
    const disks: SlowStore[] = [];
    await expectRight(() => {
      disks.push(new SlowStore(ODD));
      return disks.at(-1) ?? new SlowStore(ODD);
    });
    expect(Math.max(...disks.map(({ inFlightMax }) => inFlightMax))).toBeWithin(8, 17);
  });
});

const LAYERS: readonly (readonly [string, () => Layer])[] = [
  ["cow", () => cowLayer()],
  ["delay", () => delayLayer({ write: 1 })],
  ["error", () => errorLayer({ rate: 0 })],
  ["log", () => logLayer({ report: () => undefined })],
  ["readonly", () => readonlyLayer()],
  ["stats", () => statsLayer()],
];

describe.each(LAYERS)("%s", (_, layer) => {
  test("over a synchronous device", () => expectRight(() => layer()(new Ramdisk(ODD))));
  test("over an asynchronous device", () => expectRight(() => layer()(new SlowStore(ODD))));
});

test("all layers at once", () =>
  expectRight(() =>
    applyLayers(
      new SlowStore(ODD),
      LAYERS.filter(([name]) => name !== "readonly").map(([, layer]) => layer()),
    ),
  ));

test.each<[string, () => Ramdisk | SlowStore]>([
  ["a synchronous device", () => new Ramdisk(ODD)],
  ["an asynchronous device", () => new SlowStore(ODD)],
])("an overlay file over %s keeps what was flushed", async (_, makeBase) => {
  using directory = new TemporaryDirectory();
  const file = directory.join("overlay");
  await expectRight(() => cowLayer({ file })(makeBase()), { persistent: true });
});

test("cow over cow over something that cannot be written", () =>
  expectRight(() => applyLayers(new Deadbeef(ODD), [cowLayer(), cowLayer()])));
