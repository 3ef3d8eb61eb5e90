/**
 * Each kind of mistake that a device can make is found, with any seed, and shown in a few steps. The seeds are new in
 * every run and are printed.
 */
import { describe, expect, test } from "bun:test";
import { checkDevice, type CheckOptions, type CheckReport } from "../../../src/check/check.ts";
import type { BlockDevice } from "../../../src/device.ts";
import * as broken from "../../support/broken-devices.ts";
import { chooseSeed } from "../../support/random.ts";
import { Shadow } from "../../support/shadow.ts";

const SIZE = 2 ** 20;
const seed = chooseSeed("broken devices");
/** With a thousand operations, one seed in 250 misses the device that loses an update. */
const OPS = 4000;

async function failureOf(
  make: () => BlockDevice,
  options: CheckOptions = {},
): Promise<NonNullable<CheckReport["failure"]>> {
  const { failure } = await checkDevice(make, { seed, ops: OPS, ...options });
  if (failure === undefined) throw new Error(`nothing was found with seed ${seed}`);
  return failure;
}

// The mistake, the device, the message, and the maximum number of steps.
test.each<[string, new (size: number) => BlockDevice, RegExp, number]>([
  ["off by one", broken.OffByOne, /byte \d+ is 0x\w\w, where/, 3],
  ["a wrong offset", broken.WrongOffset, /byte \d+ is 0x\w\w, where/, 3],
  ["what is trimmed stays so", broken.TrimmedForEver, /is 0x00, where 0x\w\w was written by step \d+$/, 4],
  ["forgets zeroes", broken.ForgetsZeroes, /where zeroes were written by step \d+$/, 4],
  ["zeroes too much", broken.ZeroesTooMuch, /is 0x00, where/, 4],
  ["keeps the buffer", broken.KeepsBuffer, /where 0x\w\w was written by step \d+$/, 3],
  ["fills short", broken.FillsShort, /^step 1, read: left its target as it was, from byte \d+ of it on$/, 1],
  ["changes the source", broken.ChangesSource, /^step 1, write: changed the data that it was to store$/, 1],
  ["writes behind", broken.WritesBehind, /^step 1, read: changed bytes behind its buffer$/, 1],
  ["writes late", broken.WritesLate, /^step \d+: wrote into its buffer after it had given it back$/, 4],
  ["loses an update", broken.LostUpdate, /where (0x\w\w was|zeroes were) written by step \d+$/, 5],
  ["is done too early", broken.DoneTooEarly, /where 0x\w\w was written by step \d+$/, 4],
  ["throws", broken.Throws, /^step 1, read: failed: bad sector$/, 1],
  ["refuses a write that comes again", broken.WritesOnce, /^step 2, write: failed: written twice$/, 2],
  ["wrong extents", broken.WrongExtents, /bytes \d+ to \d+ are said to be zero, where 0x\w\w was written/, 3],
])("%s", async (_, Device, message, steps) => {
  const failure = await failureOf(() => new Device(SIZE));
  expect(failure.message).toMatch(message);
  expect(failure.steps.length).toBeWithin(1, steps + 1);
});

test("hangs", async () => {
  const failure = await failureOf(() => new broken.Hangs(SIZE), { requestTimeout: 500 });
  expect(failure.message).toMatch(/^(step 1, \w+|flush): is not done after 50 ms$/);
  expect(failure.steps).toHaveLength(1);
});

describe("a device that is wrong as a whole", () => {
  const right = { size: SIZE, read: (target: Uint8Array) => void target.fill(0) };

  test.each<[string, () => BlockDevice, string]>([
    [
      "its factory throws",
      () => {
        throw new Error("no disk");
      },
      "making the device: failed: no disk",
    ],
    [
      "its size is not whole blocks",
      () => ({ ...right, size: 1000 }),
      "making the device: failed: size 1000",
    ],
    [
      "its close fails",
      () => ({ ...right, close: () => Promise.reject(new Error("stuck")) }),
      "close: failed: stuck",
    ],
  ])("%s", async (_, make, message) => {
    expect((await failureOf(make)).message).toStartWith(message);
  });

  test("its size changes when it is made anew", async () => {
    let made = 0;
    const make = (): BlockDevice => ({ ...right, size: SIZE + 512 * made++ });
    // One of that many operations closes it.
    const failure = await failureOf(make, { ops: 5000 });
    expect(failure.message).toMatch(/^making the device: failed: its size is \d+, and was \d+ before/);
    expect(failure.steps).toEqual(["reopen"]);
  });
});

test("a device that is right", async () => {
  const report = await checkDevice(() => new Shadow(SIZE), { seed, ops: 3000 });
  expect(report).toEqual({ seed, ops: 3000, failure: undefined });
});

test("what was flushed is gone when the device is made anew, where it is to be kept", async () => {
  const options = { persistent: true, ops: 3000 };
  const failure = await failureOf(() => new Shadow(SIZE), options);
  expect(failure.message).toMatch(/where 0x\w\w was written by step 1$/);
  expect(failure.steps).toHaveLength(3);
  expect(failure.steps[1]).toBe("reopen");
});

test("the same seed finds the same again", async () => {
  const [one, other] = await Promise.all([0, 1].map(() => failureOf(() => new broken.ZeroesTooMuch(SIZE))));
  expect(one).toEqual(other);
});

test("steps say which were in flight together", async () => {
  const { steps } = await failureOf(() => new broken.LostUpdate(SIZE));
  expect(steps.join("\n")).toMatch(/^(write|writeZeroes) offset \d+ length \d+.* \(while in flight: \d/m);
});

test("a device that is broken is closed as often as it is made", async () => {
  let open = 0;
  const failure = await failureOf(() => {
    open += 1;
    const disk = new broken.OffByOne(SIZE);
    return Object.assign(disk, {
      close: () => {
        open -= 1;
      },
    });
  });
  expect(failure.steps.length).toBeGreaterThan(0);
  expect(open).toBe(0);
});

describe("a crash", () => {
  /** Keeps writes in memory until a flush. Each of the flags is a mistake. */
  class Cached implements BlockDevice {
    readonly size = SIZE;
    readonly fua = "native";
    readonly #cache = new Map<number, Uint8Array>();

    constructor(
      readonly disk: Uint8Array,
      readonly mistakes: { readonly flush?: boolean; readonly fua?: boolean } = {},
    ) {}

    read(target: Uint8Array, offset: number): void {
      for (let at = 0; at < target.length; at += 512) {
        const place = offset + at;
        target.set(this.#cache.get(place) ?? this.disk.subarray(place, place + 512), at);
      }
    }

    write(source: Uint8Array, offset: number, { fua }: { readonly fua: boolean }): void {
      for (let at = 0; at < source.length; at += 512)
        this.#cache.set(offset + at, source.slice(at, at + 512));
      if (fua && this.mistakes.fua !== true) this.flush();
    }

    flush(): void {
      if (this.mistakes.flush !== true) this.store();
    }

    close(): void {
      this.store();
    }

    store(): void {
      for (const [place, bytes] of this.#cache) this.disk.set(bytes, place);
      this.#cache.clear();
    }
  }

  test("loses what was not flushed, which is no mistake", async () => {
    const disk = new Uint8Array(SIZE);
    const report = await checkDevice(() => new Cached(disk), { seed, ops: OPS, crash: true });
    expect(report.failure?.message).toBeUndefined();
  });

  test.each([
    ["a flush that does nothing", { flush: true }],
    ["FUA that does nothing", { fua: true }],
  ] as const)("%s", async (_, mistakes) => {
    const disk = new Uint8Array(SIZE);
    const failure = await failureOf(() => new Cached(disk, mistakes), { crash: true, shrinkTime: 2000 });
    // Lost data is found at once if something was written there since, else by a later read.
    expect(failure.message).toMatch(/byte \d+ is 0x\w\w, where .*( and flushed|by step \d+$|read brought)/);
    expect(failure.steps).toContain("crash");
  });
});
