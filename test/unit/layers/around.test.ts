/** What every layer must preserve: capabilities, synchrony, errors, and a single close. */
import { describe, expect, test } from "bun:test";
import { closeSync, openSync, readFileSync } from "node:fs";
import { Loop } from "../../../devices/loop.ts";
import { Ramdisk } from "../../../devices/ramdisk.ts";
import type { BlockDevice } from "../../../src/device.ts";
import { ErrnoError } from "../../../src/errors.ts";
import { closeOnce } from "../../../src/layers/around.ts";
import { cowLayer } from "../../../src/layers/cow.ts";
import { delayLayer } from "../../../src/layers/delay.ts";
import { errorLayer } from "../../../src/layers/error.ts";
import { applyLayers, type Layer } from "../../../src/layers/layer.ts";
import { logLayer } from "../../../src/layers/log.ts";
import { readonlyLayer } from "../../../src/layers/readonly.ts";
import { statsLayer } from "../../../src/layers/stats.ts";
import { SwappableDevice } from "../../../src/module/swappable.ts";
import { SlowStore } from "../../support/async-devices.ts";
import { MemoryShadow, NativeShadow, Shadow } from "../../support/shadow.ts";
import { TemporaryDirectory } from "../../support/temporary.ts";
import { lazily, stubborn, untouchable } from "../../support/thenable.ts";

const SIZE = 64 * 1024;
const BLOCK = 512;
const PLAIN = { fua: false };
const HOLE = { fua: false, mayTrim: true };
const METHODS = ["read", "write", "flush", "trim", "writeZeroes", "extents"] as const;

/** Layers that see all data without changing it. */
const WATCHING: readonly (readonly [string, Layer])[] = [
  ["delay", delayLayer({})],
  ["error", errorLayer({ rate: 0 })],
  ["log", logLayer({ report: () => undefined })],
  ["stats", statsLayer()],
];
const SYNCHRONOUS = WATCHING.filter(([name]) => name !== "delay");
const ALL: typeof WATCHING = [...WATCHING, ["cow", cowLayer()], ["readonly", readonlyLayer()]];

const watched: Layer = (device) => new SwappableDevice(device);

const cannotBe: Layer = () => {
  throw new Error("cannot be");
};

function fail(): never {
  throw new ErrnoError("ENOSPC");
}

const readOnly: BlockDevice = { size: SIZE, read: () => undefined };

describe.each(WATCHING)("%s", (_, layer) => {
  test("has the methods of the device, and no others", () => {
    const devices: readonly BlockDevice[] = [readOnly, new Shadow(SIZE), new SlowStore(SIZE)];
    for (const device of devices) {
      const layered = layer(device);
      for (const method of METHODS) expect(layered[method] === undefined).toBe(device[method] === undefined);
    }
  });

  test("is as large, as coarse, as slow to move and as able of FUA as the device", () => {
    const device = { ...readOnly, blockSize: 4096, rotational: true, fua: "native" } as const;
    const shape = { size: SIZE, blockSize: 4096, rotational: true, fua: "native" };
    expect(layer(device)).toMatchObject(shape);
    const plain = layer(readOnly);
    for (const key of ["blockSize", "rotational", "fua"]) expect(key in plain).toBe(false);
  });

  test("passes every call on with all that it says", async () => {
    const device = new NativeShadow(SIZE);
    const layered = layer(device);
    const options = { fua: true, mayTrim: true };
    await layered.write?.(new Uint8Array(BLOCK).fill(7), BLOCK, options);
    const target = new Uint8Array(BLOCK);
    await layered.read(target, BLOCK);
    expect(target).toEqual(new Uint8Array(BLOCK).fill(7));
    await layered.trim?.(0, BLOCK, PLAIN);
    await layered.writeZeroes?.(BLOCK, 2 * BLOCK, options);
    await layered.flush?.();
    expect(device.calls).toEqual([
      "write 512+512 fua",
      "read 512+512",
      "trim 0+512",
      "writeZeroes 512+1024 fua hole",
      "flush",
    ]);
  });

  test("an errno of the device stays what it is, thrown or rejected", async () => {
    const thrown = layer({ ...readOnly, read: fail });
    const rejected = layer({ ...readOnly, read: async () => fail() });
    for (const device of [thrown, rejected]) {
      const read = async (): Promise<void> => device.read(new Uint8Array(BLOCK), 0);
      expect(await read().catch((error: unknown) => error)).toMatchObject({ code: "ENOSPC" });
    }
  });
});

/** A device whose methods work only if their promises are awaited. */
function lazy(device: Shadow): BlockDevice {
  return {
    size: device.size,
    read: (target, offset) => lazily(() => device.read(target, offset)),
    write: (source, offset, options) => lazily(() => device.write(source, offset, options)),
    extents: () => lazily(() => [{ length: SIZE, hole: false, zero: false }]),
  };
}

describe.each([...ALL, ["watched", watched]] as const)("over promises of another make, %s", (_, layer) => {
  test("waits for them", async () => {
    const shadow = new Shadow(SIZE);
    shadow.bytes.fill(5);
    const layered = layer(lazy(shadow));
    const expected = shadow.bytes.slice();
    if (layered.write !== undefined) {
      expected.fill(6, BLOCK, 2 * BLOCK);
      await layered.write(new Uint8Array(BLOCK).fill(6), BLOCK, PLAIN);
    }
    const target = new Uint8Array(SIZE);
    await layered.read(target, 0);
    expect(Buffer.compare(target, expected)).toBe(0);
    expect((await layered.extents?.(8192, 4096))?.[0]).toMatchObject({ hole: false });
  });

  test.each<[string, () => Promise<void>]>([
    ["cannot be looked at", untouchable],
    ["cannot be called", stubborn],
  ])("one that %s is a failure", async (__, returned) => {
    const layered = layer({ size: SIZE, read: returned, close: returned });
    const read = async (): Promise<void> => layered.read(new Uint8Array(BLOCK), 0);
    expect(await read().catch((error: unknown) => error)).toEqual(new Error("hands off"));
    const close = async (): Promise<void> => layered.close?.();
    expect(await close().catch((error: unknown) => error)).toEqual(new Error("hands off"));
  });
});

test.each(SYNCHRONOUS)("%s: a synchronous device stays synchronous", (_, layer) => {
  const layered = layer(new Shadow(SIZE));
  expect(layered.write?.(new Uint8Array(BLOCK), 0, PLAIN)).toBeUndefined();
  expect(layered.read(new Uint8Array(BLOCK), 0)).toBeUndefined();
  expect(layered.writeZeroes?.(0, BLOCK, HOLE)).toBeUndefined();
  expect(layered.flush?.()).toBeUndefined();
});

test.each(ALL)("%s closes the device, once", async (_, layer) => {
  const device = new SlowStore(SIZE);
  const layered = layer(device);
  await layered.close?.();
  await layered.close?.();
  expect(device.closes).toBe(1);
});

/** Each request, and a second close. */
async function outcomes(device: BlockDevice): Promise<unknown[]> {
  const requests = [
    () => device.read(new Uint8Array(BLOCK), 0),
    () => device.write?.(new Uint8Array(BLOCK), 0, PLAIN),
    () => device.writeZeroes?.(0, SIZE, HOLE),
    () => device.trim?.(0, SIZE, PLAIN),
    ...(device.flush === undefined ? [] : [() => device.flush?.()]),
  ];
  const said = requests.map((request) => Promise.try(request).catch((error: unknown) => error));
  await device.close?.();
  return Promise.all(said);
}

describe("what is closed is not used", () => {
  test.each<[string, (path: string) => BlockDevice]>([
    ["a file", (path) => new Loop(path, { create: SIZE })],
    ["a RAM disk", () => new Ramdisk(SIZE)],
    ["cow in memory", () => cowLayer()(new Shadow(SIZE))],
    ["cow in a file", (path) => cowLayer({ file: path })(new Shadow(SIZE))],
  ])("%s", async (_, make) => {
    using directory = new TemporaryDirectory();
    const device = make(directory.join("file"));
    await device.write?.(new Uint8Array(SIZE).fill(1), 0, PLAIN);
    await device.close?.();
    for (const outcome of await outcomes(device)) expect(outcome).toMatchObject({ code: "EIO" });
  });

  test("though a layer has kept a request until then", async () => {
    const device = new NativeShadow(SIZE);
    const said = await outcomes(delayLayer({ all: 1 })(device));
    for (const outcome of said)
      expect(outcome).toMatchObject({ code: "EIO", message: "the device is closed" });
    expect(device.calls).toEqual([]);
  });

  test("and a log gets no line of what is done later", async () => {
    using directory = new TemporaryDirectory();
    const logged = logLayer({ file: directory.join("log") })(delayLayer({ all: 1 })(new Shadow(SIZE)));
    const late = Promise.try(() => logged.read(new Uint8Array(BLOCK), 0)).catch(() => undefined);
    await logged.close?.();
    // They get the numbers of the file descriptors that were closed.
    const others = Array.from({ length: 8 }, () => openSync(directory.join("other"), "w"));
    await late;
    for (const other of others) closeSync(other);
    expect(readFileSync(directory.join("other"), "utf8")).toBe("");
  });
});

describe("the memory of a device", () => {
  test.each(ALL.filter(([name]) => name !== "readonly"))("is not shown by %s", (_, layer) => {
    const device = new MemoryShadow(SIZE);
    expect("memory" in layer(device)).toBe(false);
    device.close();
  });

  test("is shown by readonly, which has nothing to see", () => {
    const device = new MemoryShadow(SIZE);
    expect(readonlyLayer()(device).memory).toBe(device.memory);
    device.close();
  });
});

test("readonly takes away all that changes data", () => {
  const layered = readonlyLayer()(new NativeShadow(SIZE));
  for (const method of ["write", "flush", "trim", "writeZeroes", "fua"])
    expect(method in layered).toBe(false);
});

test("extents are passed on", () => {
  const extents = [{ length: SIZE, hole: true, zero: true }];
  for (const [, layer] of WATCHING) {
    expect(layer({ ...readOnly, extents: () => extents }).extents?.(0, SIZE)).toBe(extents);
  }
});

describe("several layers", () => {
  test("the first is nearest to the transport", () => {
    const order: string[] = [];
    const named =
      (name: string): Layer =>
      (device) => ({
        ...device,
        read: (target, offset) => {
          order.push(name);
          return device.read(target, offset);
        },
      });
    void applyLayers(readOnly, [named("first"), named("second")]).read(new Uint8Array(BLOCK), 0);
    expect(order).toEqual(["first", "second"]);
  });

  test("when one cannot be, the device is closed", async () => {
    const device = new SlowStore(SIZE);
    expect(() => applyLayers(device, [cannotBe, statsLayer()])).toThrow("cannot be");
    await Promise.resolve();
    expect(device.closes).toBe(1);
  });
});

describe("what a layer has of its own is closed", () => {
  test.each<[string, () => void | Promise<void>]>([
    ["when the device closes", () => undefined],
    ["when the device closes later", async () => undefined],
    [
      "when the device throws",
      () => {
        throw new Error("stuck");
      },
    ],
    ["when the device rejects", () => Promise.reject(new Error("stuck"))],
  ])("%s", async (when, close) => {
    let closed = 0;
    const closing = closeOnce({ ...readOnly, close }, () => {
      closed += 1;
    });
    const outcome = await Promise.try(closing).catch((error: unknown) => error);
    expect(closed).toBe(1);
    expect(outcome instanceof Error).toBe(/throws|rejects/.test(when));
  });

  test("and when both fail the device's error comes first", async () => {
    const outcome = Promise.try(
      closeOnce({ ...readOnly, close: fail }, () => {
        throw new Error("stuck");
      }),
    ).catch((error: unknown) => error);
    expect(await outcome).toMatchObject({ code: "ENOSPC", message: expect.stringMatching(/; stuck$/) });
  });
});
