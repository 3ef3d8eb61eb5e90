/** Goal: the time in each layer is known while somebody watches, and a device keeps its capabilities. */
import { expect, test } from "bun:test";
import { around } from "../../../src/layers/around.ts";
import { delayLayer } from "../../../src/layers/delay.ts";
import type { Layer } from "../../../src/layers/layer.ts";
import { LayerTimes } from "../../../src/layers/layer-times.ts";
import { readonlyLayer } from "../../../src/layers/readonly.ts";
import { MemoryShadow, Shadow } from "../../support/shadow.ts";

const SIZE = 2 ** 20;
const DELAY_MS = 20;

/** A layer that passes everything on at once. */
const plain: Layer = (device) => around("plain", device, (_, proceed) => proceed());

test("each layer has its own time, once somebody watches", async () => {
  const times = new LayerTimes();
  const device = times.apply(new Shadow(SIZE), [plain, delayLayer({ read: DELAY_MS })], ["plain", "delay"]);
  const target = new Uint8Array(512);
  await device.read(target, 0);
  expect(times.times.map(({ requests }) => requests)).toEqual([0, 0, 0]);
  times.watch(60_000);
  for (let round = 0; round < 3; round += 1) await device.read(target, 0);
  await device.write?.(target, 0, { fua: false });
  const [first, second, last] = times.times;
  expect([first?.name, second?.name, last?.name]).toEqual(["plain", "delay", "device"]);
  expect(times.times.map(({ requests }) => requests)).toEqual([4, 4, 4]);
  // A timer may be early by less than a millisecond.
  expect(second?.ms).toBeGreaterThanOrEqual(3 * (DELAY_MS - 1));
  expect(first?.ms).toBeLessThan(second?.ms ?? 0);
  expect(last?.ms).toBeLessThan(second?.ms ?? 0);
});

test("a request that fails is counted, and fails as it did", async () => {
  const times = new LayerTimes();
  const device = times.apply(
    { size: SIZE, read: () => Promise.reject(new Error("oops")) },
    [plain],
    ["plain"],
  );
  times.watch(60_000);
  await expect(Promise.resolve(device.read(new Uint8Array(512), 0))).rejects.toThrow("oops");
  expect(times.times.map(({ requests }) => requests)).toEqual([1, 1]);
});

test("a device without layers is left alone, and one with some keeps its memory and its methods", () => {
  const bare = new Shadow(SIZE);
  expect(new LayerTimes().apply(bare, [], [])).toBe(bare);
  const memory = new MemoryShadow(SIZE);
  const device = new LayerTimes().apply(memory, [readonlyLayer()], ["readonly"]);
  expect(device.memory).toBe(memory.memory);
  expect([device.size, device.write, device.trim]).toEqual([SIZE, undefined, undefined]);
});
