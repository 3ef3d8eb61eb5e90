/** Goal: an exchange happens between two requests: none is lost, none is answered twice, none by a closed device. */
import { expect, test } from "bun:test";
import type { BlockDevice } from "tsbuse";
import { ErrnoError, messageOf } from "../../../src/errors.ts";
import { SwappableDevice } from "../../../src/module/swappable.ts";
import { type Hold, Shadow } from "../../support/shadow.ts";

/** Notes what is asked of it, and answers when it is told to. */
class Noting extends Shadow {
  readonly #pending: (() => void)[] = [];

  constructor(
    readonly name: string,
    readonly notes: string[],
    readonly holds = false,
  ) {
    super(8192);
  }

  override hold: Hold = (offset, _length, method) => {
    const request = method === "flush" ? method : `${method} ${offset}`;
    this.notes.push(`${this.name} ${request}`);
    if (!this.holds || method === "flush") return undefined;
    return new Promise((resolve) => {
      this.#pending.push(() => {
        this.notes.push(`${this.name} done ${request}`);
        resolve();
      });
    });
  };

  takeOver(previous: BlockDevice): void {
    this.notes.push(`${this.name} takes over ${previous instanceof Noting ? previous.name : "?"}`);
  }

  override close(): void {
    this.notes.push(`${this.name} close`);
  }

  /** Answers what is pending. */
  answer(): void {
    for (const resolve of this.#pending.splice(0)) resolve();
  }
}

const BYTES = new Uint8Array(512);
const fail = (): never => {
  throw new ErrnoError("EIO", "no");
};

const OPTIONS = { fua: false };

test("a synchronous device stays one, and is exchanged at once", async () => {
  const notes: string[] = [];
  const device = new SwappableDevice(new Noting("a", notes));
  expect(device.read(BYTES, 0)).toBeUndefined();
  const previous = await device.swap(new Noting("b", notes));
  expect(device.read(BYTES, 512)).toBeUndefined();
  await previous.close?.();
  await device.close();
  expect(notes).toEqual(["a read 0", "a flush", "b takes over a", "b read 512", "a close", "b close"]);
});

test("a swap waits for what is under way, and what comes meanwhile waits for the swap, in its order", async () => {
  const notes: string[] = [];
  const first = new Noting("a", notes, true);
  const device = new SwappableDevice(first);
  const early = [device.read(BYTES, 0), device.write?.(BYTES, 512, OPTIONS)];
  const swap = device.swap(new Noting("b", notes));
  const late = [device.write?.(BYTES, 1024, OPTIONS), device.read(BYTES, 1024), device.flush?.()];
  first.answer();
  await Promise.all([...early, swap, ...late]);
  expect(notes).toEqual([
    "a read 0",
    "a write 512",
    "a done read 0",
    "a done write 512",
    "a flush",
    "b takes over a",
    "b write 1024",
    "b read 1024",
    "b flush",
  ]);
});

test("the device may be closed in the middle of a swap: it closes the one that is there then", async () => {
  const notes: string[] = [];
  const first = new Noting("a", notes, true);
  const device = new SwappableDevice(first);
  const read = device.read(BYTES, 0);
  const swap = device.swap(new Noting("b", notes));
  const close = device.close();
  first.answer();
  await Promise.all([read, swap, close]);
  expect(notes.at(-1)).toBe("b close");
});

test("the options of a call that waits are those it came with", async () => {
  const seen: boolean[] = [];
  const next = {
    size: 8192,
    read: () => undefined,
    write: (_source: Uint8Array, _offset: number, { fua }: { fua: boolean }) => void seen.push(fua),
  };
  const device = new SwappableDevice({ ...next });
  const reused = { fua: true };
  const swap = device.swap(next);
  const write = device.write?.(BYTES, 0, reused);
  reused.fua = false;
  await Promise.all([swap, write]);
  expect(seen).toEqual([true]);
});

test("a device that does not come to rest goes on, and so do the requests that waited", async () => {
  const notes: string[] = [];
  const first = new Noting("a", notes, true);
  const device = new SwappableDevice(first);
  const early = device.read(BYTES, 0);
  const swap = device.swap(new Noting("b", notes), 20);
  const late = device.read(BYTES, 512);
  expect(await swap.catch(messageOf)).toBe(
    "a request to the device before is not done after 0.02 s: see what it waits for",
  );
  first.answer();
  await early;
  first.answer();
  await late;
  expect(notes).toEqual(["a read 0", "a read 512", "a done read 0", "a done read 512"]);
});

test.each([
  ["takeOver", "takeOver failed: no"],
  ["flush", "flush of the device before failed: no"],
])("when %s fails the device before goes on", async (method, message) => {
  const plain = { size: 512, read: () => undefined, flush: () => undefined };
  const first: BlockDevice = method === "flush" ? { ...plain, flush: fail } : plain;
  const next: BlockDevice = method === "takeOver" ? { ...plain, takeOver: fail } : { ...plain };
  const device = new SwappableDevice(first);
  expect(await device.swap(next).catch(messageOf)).toBe(message);
  expect(device.uses(first)).toBe(true);
  expect(device.read(BYTES, 0)).toBeUndefined();
});

test("a request that fails is no longer under way", async () => {
  const first: BlockDevice = { size: 512, read: () => Promise.reject(new ErrnoError("ENOSPC")) };
  const device = new SwappableDevice(first);
  const read = device.read(BYTES, 0);
  const swap = device.swap({ size: 512, read: () => undefined });
  expect(await Promise.resolve(read).catch((error: unknown) => error)).toEqual(new ErrnoError("ENOSPC"));
  expect(await swap).toBe(first);
});

const PLAIN: BlockDevice = { size: 8192, read: () => undefined, write: () => undefined };

test.each([
  [{ ...PLAIN, size: 4096 }, "size was 8192 and is 4096 now"],
  [{ ...PLAIN, blockSize: 4096 }, "blockSize was 512 and is 4096 now"],
  [{ ...PLAIN, fua: "native" as const }, "fua was absent and is native now"],
  [{ ...PLAIN, rotational: true }, "rotational was false and is true now"],
  [{ ...PLAIN, trim: () => undefined }, "trim was absent and is there now"],
  [{ size: 8192, read: () => undefined }, "write was there and is absent now"],
])("a device that is not alike is refused: %p", async (next, message) => {
  const device = new SwappableDevice(PLAIN);
  const refusal = await device.swap(next).catch(messageOf);
  expect(refusal).toBe(`${message}, which cannot change in use: restart tsbuse for that`);
  expect(device.uses(PLAIN)).toBe(true);
});

test("it can what the first device can, and no more", () => {
  const device = new SwappableDevice({
    size: 512,
    blockSize: 512,
    fua: "native",
    read: () => undefined,
    flush: () => undefined,
  });
  expect(device).toMatchObject({ size: 512, blockSize: 512, fua: "native" });
  expect([device.write, device.trim, device.writeZeroes, device.extents]).toEqual(Array(4).fill(undefined));
  expect(device.flush).toBeFunction();
});
