/** Goal: whatever a server loses when it dies, answered writes survive, and a flush keeps its promise. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { BlockDevice } from "../../../../src/device.ts";
import { type Attachment, connectNbd, serve, type ServeOptions } from "../../../../src/index.ts";
import { anySeed } from "../../../../src/values/random.ts";
import { Random } from "../../../support/random.ts";
import { until } from "../../../support/shell.ts";
import { TemporaryDirectory } from "../../../support/temporary.ts";
import { type VolatileDisk, VolatileStore } from "../../../support/volatile-store.ts";

const BLOCK = 512;
const BLOCKS = 64;
const PLAIN = { fua: false };

let directory: TemporaryDirectory;
let lines: string[];
let server: Attachment | undefined;

beforeEach(() => {
  directory = new TemporaryDirectory();
  lines = [];
});

afterEach(async () => {
  await end();
  directory[Symbol.dispose]();
});

const target = (): string => `unix:${directory.join("disk.sock")}`;
const uri = (): string => `nbd+unix:///disk?socket=${directory.join("disk.sock")}`;
const connect = (): Promise<BlockDevice> => connectNbd(uri(), { log: (line) => lines.push(line) });
const said = (text: string): boolean => lines.some((line) => line.includes(text));

async function start(device: BlockDevice, options: ServeOptions = {}): Promise<void> {
  server = await serve(device, target(), { exportName: "disk", ...options });
}

/** Ends the server at once, with requests in flight. */
async function end(): Promise<void> {
  const ending = server;
  server = undefined;
  await ending?.close({ timeoutMs: 0 }).catch(() => undefined);
}

/** Turns the power off and on. */
async function crash(store: VolatileStore, disk: VolatileDisk): Promise<VolatileDisk> {
  disk.isOff = true;
  await end();
  const next = store.powerOn();
  await start(next);
  return next;
}

/** A unique block. */
function blockOf(random: Random): Uint8Array {
  return Uint8Array.from({ length: BLOCK }, () => random.below(256));
}

test("a server that loses what was not flushed, again and again", async () => {
  const seed = anySeed();
  console.log(`seed ${seed}`);
  const random = new Random(seed);
  const store = new VolatileStore(BLOCKS * BLOCK);
  const expected = new Uint8Array(store.size);
  let disk = store.powerOn();
  await start(disk);
  const device = await connect();

  const change = async (block: number): Promise<void> => {
    const at = block * BLOCK;
    const options = { fua: random.oneIn(4) };
    const isZero = random.oneIn(4);
    const bytes = isZero ? new Uint8Array(BLOCK) : blockOf(random);
    expected.set(bytes, at);
    if (isZero) await device.writeZeroes?.(at, BLOCK, { ...options, mayTrim: true });
    else await device.write?.(bytes, at, options);
    if (options.fua) expect(store.stable.subarray(at, at + BLOCK)).toEqual(bytes);
  };

  for (let round = 0; round < 40; round += 1) {
    // Each block once, because ranges in flight must not overlap.
    const blocks = new Set(Array.from({ length: random.below(40) }, () => random.below(BLOCKS)));
    const changes = [...blocks].map(change);
    // It covers writes answered by now, and none that are answered meanwhile.
    if (random.oneIn(2)) changes.splice(0, 0, device.flush?.() ?? Promise.resolve());
    if (random.oneIn(3)) disk = await crash(store, disk);
    await Promise.all(changes);
    if (random.oneIn(2)) disk = await crash(store, disk);
    if (random.oneIn(3)) {
      const flushed = device.flush?.();
      if (random.oneIn(2)) disk = await crash(store, disk);
      await flushed;
      expect(store.stable).toEqual(expected);
    }
    const seen = new Uint8Array(store.size);
    await device.read(seen, 0);
    expect(seen).toEqual(expected);
  }
  await device.close?.();
}, 60_000);

test("a restart without a write since the last flush repeats nothing", async () => {
  const store = new VolatileStore(BLOCKS * BLOCK);
  let disk = store.powerOn();
  await start(disk);
  const device = await connect();
  await device.write?.(new Uint8Array(BLOCK).fill(1), 0, PLAIN);
  await device.flush?.();
  // As if another client had written there since, so that a repetition would show.
  store.stable.fill(2, 0, BLOCK);
  disk = await crash(store, disk);
  const seen = new Uint8Array(BLOCK);
  await device.read(seen, 0);
  expect(seen).toEqual(new Uint8Array(BLOCK).fill(2));
  await device.close?.();
});

test("a flush that fails is told, and so is one that nobody asked for", async () => {
  const store = new VolatileStore(128 * 2 ** 20);
  await start(store.powerOn());
  const device = await connect();
  await device.write?.(new Uint8Array(BLOCK), 0, PLAIN);
  store.failingFlushes = 1;
  await expect(device.flush?.()).rejects.toThrow("Input/output error");
  store.failingFlushes = 1;
  const megabyte = new Uint8Array(2 ** 20);
  // More than is kept, so the device must flush by itself.
  for (let at = 0; at < 96; at += 1) await device.write?.(megabyte, at * 2 ** 20, PLAIN);
  expect(store.flushes).toBeGreaterThan(1);
  expect(said("a flush failed; the next flush fails")).toBe(true);
  await expect(device.flush?.()).rejects.toThrow("may be lost");
  await device.flush?.();
  await device.close?.();
}, 30_000);

describe("a server that comes back", () => {
  const SIZE = BLOCKS * BLOCK;

  test.each<[string, number, ServeOptions, string]>([
    ["smaller", SIZE / 2, {}, `the export has ${SIZE / 2} bytes now, and had ${SIZE}`],
    ["larger", SIZE * 2, {}, `the export has ${SIZE * 2} bytes now, and had ${SIZE}`],
    ["read-only", SIZE, { readOnly: true }, "the export is read-only now"],
    ["with another name", SIZE, { exportName: "other" }, 'the server has no export "disk"'],
  ])("%s is not used, and is waited for", async (_, size, options, line) => {
    const store = new VolatileStore(SIZE);
    await start(store.powerOn());
    const device = await connect();
    await end();
    await start(new VolatileStore(size).powerOn(), options);
    const written = device.write?.(new Uint8Array(BLOCK).fill(7), 0, PLAIN);
    await until("it says why", () => said(line));
    await end();
    await start(store.powerOn());
    await written;
    expect(store.current[0]).toBe(7);
    await device.close?.();
  });

  test("read-only is good enough for who only reads", async () => {
    const store = new VolatileStore(SIZE);
    store.stable.fill(3);
    await start(store.powerOn());
    const device = await connectNbd(uri(), { readOnly: true });
    await end();
    await start(store.powerOn(), { readOnly: true });
    const seen = new Uint8Array(BLOCK);
    await device.read(seen, 0);
    expect(seen).toEqual(new Uint8Array(BLOCK).fill(3));
    expect(device.write ?? device.flush ?? device.trim).toBeUndefined();
    await device.close?.();
  });

  test("never is no reason to wait with nothing to lose", async () => {
    await start(new VolatileStore(SIZE).powerOn());
    const device = await connect();
    await device.write?.(new Uint8Array(BLOCK), 0, PLAIN);
    await device.flush?.();
    await end();
    await until("it is missed", () => said("requests wait until it is back"));
    await device.flush?.();
    await device.close?.();
  });

  test("never is no reason not to end", async () => {
    await start(new VolatileStore(SIZE).powerOn());
    const device = await connect();
    await end();
    const read = device.read(new Uint8Array(BLOCK), 0);
    await until("it is missed", () => said("requests wait until it is back"));
    await device.close?.();
    await expect(read).rejects.toThrow("is not in use any more");
    expect(() => device.read(new Uint8Array(BLOCK), 0)).toThrow("is not in use any more");
  });
});
