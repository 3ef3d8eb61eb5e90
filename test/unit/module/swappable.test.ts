/** Goal: a swap happens between two requests: none is lost, none is answered twice, none by a closed device. */
import { expect, test } from "bun:test";
import type { BlockDevice } from "tsbuse";
import { ErrnoError, messageOf } from "../../../src/errors.ts";
import { until } from "../../support/shell.ts";
import { SwappableDevice } from "../../../src/module/swappable.ts";
import { type Hold, Shadow } from "../../support/shadow.ts";

/** Notes its requests, and answers them when told. */
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

  /** Answers the pending requests. */
  answer(): void {
    for (const resolve of this.#pending.splice(0)) resolve();
  }
}

const BYTES = new Uint8Array(512);
const fail = (): never => {
  throw new ErrnoError("EIO", "no");
};

const OPTIONS = { fua: false };

/** Until a swap keeps requests back: it has flushed once, and has had a turn of the event loop to go on. */
async function untilGated(notes: readonly string[]): Promise<void> {
  await until("the first flush", () => notes.includes("a flush"));
  await Bun.sleep(0);
}

test("a synchronous device stays one, and is exchanged at once", async () => {
  const notes: string[] = [];
  const device = new SwappableDevice(new Noting("a", notes));
  expect(device.read(BYTES, 0)).toBeUndefined();
  expect(await device.swap(new Noting("b", notes))).toBe(0);
  expect(device.read(BYTES, 512)).toBeUndefined();
  await device.close();
  expect(notes).toEqual("a read 0,a flush,a flush,b takes over a,a close,b read 512,b close".split(","));
});

test("a swap waits for what is under way, and what comes meanwhile waits for the swap, in its order", async () => {
  const notes: string[] = [];
  const first = new Noting("a", notes, true);
  const device = new SwappableDevice(first);
  const early = [device.read(BYTES, 0), device.write?.(BYTES, 512, OPTIONS)];
  const swap = device.swap(new Noting("b", notes));
  await untilGated(notes);
  const late = [device.write?.(BYTES, 1024, OPTIONS), device.read(BYTES, 1024), device.flush?.()];
  first.answer();
  await Promise.all([...early, swap, ...late]);
  expect(notes).toEqual(
    [
      [
        "a read 0",
        "a write 512",
        "a flush",
        "a done read 0",
        "a done write 512",
        "a flush",
        "b takes over a",
      ],
      ["b write 1024", "b read 1024", "b flush", "a close"],
    ].flat(),
  );
});

test.each([
  ["before it has begun", "a close,b close", (): void => undefined],
  ["while it waits for a request", "a flush,a close,b close", untilGated],
])(
  "a swap of a device that is being closed %s: each is closed once, and used no more",
  async (_, expected, when) => {
    const notes: string[] = [];
    const device = new SwappableDevice(new Noting("a", notes, true));
    const next = new Noting("b", notes);
    const read = device.read(BYTES, 0);
    const early = expected.startsWith("a close") ? device.close() : undefined;
    const swap = device.swap(next, { restMs: 60_000 });
    await when(notes);
    const close = early ?? device.close();
    expect(await swap.catch(messageOf)).toBe("the device is being closed");
    // As the maker of `next` does.
    expect(device.uses(next)).toBe(false);
    await close;
    next.close();
    expect(notes.join()).toBe(`a read 0,${expected}`);
    expect(device.isClosing).toBe(true);
    void read;
  },
);

test("the options of a call that waits are those it came with", async () => {
  const seen: boolean[] = [];
  const notes: string[] = [];
  const held = Promise.withResolvers<void>();
  const next = {
    size: 8192,
    read: () => held.promise,
    write: (_source: Uint8Array, _offset: number, { fua }: { fua: boolean }) => void seen.push(fua),
    flush: () => void notes.push("a flush"),
  };
  const device = new SwappableDevice({ ...next });
  const reused = { fua: true };
  void device.read(BYTES, 0);
  const swap = device.swap(next);
  await untilGated(notes);
  const write = device.write?.(BYTES, 0, reused);
  reused.fua = false;
  held.resolve();
  await Promise.all([swap, write]);
  expect(seen).toEqual([true]);
});

test("a request that is not answered holds nobody up for long, and is asked again when it is", async () => {
  const notes: string[] = [];
  const first = new Noting("a", notes, true);
  // The change was given up.
  const device = new SwappableDevice(first, undefined, 1);
  const early = [device.read(BYTES, 0), device.write?.(BYTES, 512, OPTIONS)];
  expect(await device.swap(new Noting("b", notes), { restMs: 20 })).toBe(2);
  expect(device.read(BYTES, 1024)).toBeUndefined();
  expect(notes.splice(0).at(-1)).toBe("b read 1024");
  first.answer();
  await Promise.all(early);
  expect(notes.toSorted()).toEqual([
    "a close",
    "a done read 0",
    "a done write 512",
    "b read 0",
    "b write 512",
  ]);
});

test.each(["write", "trim", "writeZeroes"] as const)(
  "a %s under way is waited for; one that hangs leaves the device before in place",
  async (method) => {
    const held = Promise.withResolvers<void>();
    const first = { size: 8192, read: () => undefined, [method]: () => held.promise };
    const next = { ...first };
    const device = new SwappableDevice(first);
    const changes = {
      write: () => device.write?.(BYTES, 0, OPTIONS),
      trim: () => device.trim?.(0, 512, OPTIONS),
      writeZeroes: () => device.writeZeroes?.(0, 512, { ...OPTIONS, mayTrim: true }),
    };
    const change = changes[method]();
    expect(await device.swap(next, { restMs: 1, stepMs: 20 }).catch(messageOf)).toBe(
      "a change under way is not done after 0.02 s: see what it waits for, or give --request-timeout",
    );
    expect(device.uses(first)).toBe(true);
    const swap = device.swap(next, { restMs: 1 });
    await Bun.sleep(5);
    expect(device.uses(first)).toBe(true);
    held.resolve();
    expect(await swap).toBe(0);
    await change;
    expect(device.uses(next)).toBe(true);
  },
);

test("one that is never answered: its device is closed at the end", async () => {
  const notes: string[] = [];
  const device = new SwappableDevice(new Noting("a", notes, true));
  void device.read(BYTES, 0);
  expect(await device.swap(new Noting("b", notes), { restMs: 1 })).toBe(1);
  await device.close();
  expect(notes.slice(-2)).toEqual(["b close", "a close"]);
});

test("a flush that is not answered holds nobody up, and nothing has changed", async () => {
  const first: BlockDevice = { size: 512, read: () => undefined, flush: () => new Promise(() => undefined) };
  const device = new SwappableDevice(first);
  const swap = device.swap({ ...first }, { stepMs: 20 });
  expect(device.read(BYTES, 0)).toBeUndefined();
  expect(await swap.catch(messageOf)).toBe(
    "flush of the device before is not done after 0.02 s: see what it waits for",
  );
  expect(device.uses(first)).toBe(true);
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
  const next = { size: 512, read: () => undefined };
  const swap = device.swap(next);
  expect(await Promise.resolve(read).catch((error: unknown) => error)).toEqual(new ErrnoError("ENOSPC"));
  expect(await swap).toBe(0);
  expect(device.uses(next)).toBe(true);
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
