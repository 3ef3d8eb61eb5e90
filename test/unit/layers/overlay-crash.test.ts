/**
 * Goal: an overlay file loses nothing that was acknowledged if its process is killed, and nothing that was flushed if
 * the power fails, and it can be opened after a failure at any moment. Method: record every step on the file, and open
 * the file as it is between any two steps, and in the middle of one.
 */
import { describe, expect, test } from "bun:test";
import type { BlockDevice } from "../../../src/device.ts";
import { ErrnoError } from "../../../src/errors.ts";
import { copyOnWrite } from "../../../src/layers/cow.ts";
import { FileOverlay } from "../../../src/layers/overlay-file.ts";
import { base, changed, contents, DATA, HOLE, PLAIN, SIZE } from "../../support/cow-base.ts";
import { errnoError, userError } from "../../support/failure.ts";
import { chooseSeed, Random } from "../../support/random.ts";
import { Image, RecordedStorage, SECTOR } from "../../support/recorded-storage.ts";

const BOOT = new Uint8Array(16).fill(1);
const NEXT_BOOT = new Uint8Array(16).fill(2);
const MIB = 2 ** 20;
const BLOCK = 4096;
const BLOCKS = Math.ceil(SIZE / BLOCK);

interface Opened {
  readonly storage: RecordedStorage;
  readonly cow: BlockDevice;
}

function open(image?: Image, boot: Uint8Array = BOOT, pagesMax?: number): Opened {
  const storage = new RecordedStorage(image, pagesMax);
  return { storage, cow: copyOnWrite(base(), new FileOverlay(storage, SIZE, boot)) };
}

/** A file of version 1 that holds blocks 2 and 3, full of nines. */
function versionOne(hasData = true): Image {
  const bytes = Buffer.alloc(MIB + BLOCKS * BLOCK);
  bytes.write("tsbuse overlay\n\0", "latin1");
  bytes.writeUInt32LE(1, 16);
  bytes.writeUInt32LE(BLOCK, 20);
  for (const [index, value] of [SIZE, BLOCK, MIB].entries())
    bytes.writeBigUInt64LE(BigInt(value), 24 + 8 * index);
  if (hasData) bytes[BLOCK] = 0b1100;
  if (hasData) bytes.fill(9, MIB + 2 * BLOCK, MIB + 4 * BLOCK);
  return Image.of(bytes);
}

const OLD = changed((bytes) => bytes.fill(9, 2 * BLOCK, 4 * BLOCK));

/** The permitted values of each sector. */
class Allowed {
  readonly #contents: Uint8Array[];

  constructor(only: Uint8Array) {
    this.#contents = [only.slice()];
  }

  /** Permits another value. */
  add(bytes: Uint8Array): void {
    this.#contents.push(bytes.slice());
  }

  /** The first sector with any other value. */
  wrongSector(found: Uint8Array): number | undefined {
    for (let at = 0; at < SIZE; at += SECTOR) {
      const isRight = this.#contents.some(
        (each) => Buffer.compare(each.subarray(at, at + SECTOR), found.subarray(at, at + SECTOR)) === 0,
      );
      if (!isRight) return at / SECTOR;
    }
    return undefined;
  }
}

/** A change, and its position among the steps. */
interface Event {
  readonly begun: number;
  readonly done: number;
  /** The device's contents afterwards. */
  readonly after: Uint8Array;
  readonly isFlush: boolean;
}

/** Makes changes of all kinds, the last of which closes it. */
function work({ storage, cow }: Opened, initially: Uint8Array, random: Random): Event[] {
  const events: Event[] = [];
  let now = initially;
  const sectors = SIZE / SECTOR;
  for (let count = 1; count <= 14; count += 1) {
    const begun = storage.steps.length;
    const first = random.below(sectors);
    const length = Math.min(1 + random.below(20), sectors - first) * SECTOR;
    const kind = count === 14 ? "close" : random.pick(["write", "write", "write", "zero", "flush"]);
    now = now.slice();
    if (kind === "write") {
      now.fill(count, first * SECTOR, first * SECTOR + length);
      void cow.write?.(new Uint8Array(length).fill(count), first * SECTOR, PLAIN);
    } else if (kind === "zero") {
      now.fill(0, first * SECTOR, first * SECTOR + length);
      void cow.writeZeroes?.(first * SECTOR, length, HOLE);
    } else if (kind === "flush") void cow.flush?.();
    else void cow.close?.();
    events.push({
      begun,
      done: storage.steps.length,
      after: now,
      isFlush: !["write", "zero"].includes(kind),
    });
  }
  return events;
}

/** What a file may hold if the steps ended before `steps`: what is certain, and any change begun since. */
function allowedAt(
  steps: number,
  initially: Uint8Array,
  events: readonly Event[],
  flushedOnly: boolean,
): Allowed {
  const sure = events.findLast(({ done, isFlush }) => done <= steps && (isFlush || !flushedOnly));
  const allowed = new Allowed(sure?.after ?? initially);
  const from = sure === undefined ? 0 : events.indexOf(sure) + 1;
  for (const event of events.slice(from)) if (event.begun <= steps) allowed.add(event.after);
  return allowed;
}

/** The contents of the file when it is opened, and after a flush and a power failure. */
async function reopened(image: Image, boot: Uint8Array): Promise<Uint8Array> {
  const { storage, cow } = open(image, boot);
  const found = await contents(cow);
  void cow.flush?.();
  const later = open(
    storage.afterPowerFailure(storage.steps.length, new Random(1)),
    new Uint8Array(16).fill(3),
  );
  expect(Buffer.compare(await contents(later.cow), found)).toBe(0);
  return found;
}

/** Where a write can be cut: between sectors in data and at the start of a file, anywhere in metadata. */
function partsOf(step: RecordedStorage["steps"][number], index: number): readonly number[] {
  if (step.kind !== "write") return [0];
  const isData = step.offset >= MIB && step.offset < MIB + BLOCKS * BLOCK;
  const isMade = index === 1;
  const stride = isData || isMade ? SECTOR : Math.max(1, step.bytes.length / SECTOR);
  return Array.from({ length: step.bytes.length / stride }, (_, part) => part * stride);
}

describe.each<[string, () => Image, Uint8Array]>([
  ["a new file", () => new Image(), DATA],
  ["a file of version 1", () => versionOne(), OLD],
])("%s, at every step", (_, file, initially) => {
  const seed = chooseSeed("overlay crashes");

  test("a process that is killed loses nothing that was acknowledged", async () => {
    const opened = open(file());
    const events = work(opened, initially, new Random(seed));
    const { steps } = opened.storage;
    for (const [index, step] of steps.entries()) {
      for (const part of partsOf(step, index)) {
        const found = await reopened(opened.storage.afterKill(index, part), BOOT);
        const wrong = allowedAt(index, initially, events, false).wrongSector(found);
        if (wrong !== undefined)
          throw new Error(`seed ${seed}: sector ${wrong} after ${index} steps and ${part}`);
      }
    }
  }, 60_000);

  test("a power failure loses nothing that was flushed", async () => {
    const random = new Random(seed + 1);
    for (let round = 0; round < 20; round += 1) {
      const opened = open(file());
      const events = work(opened, initially, random);
      for (const index of opened.storage.steps.keys()) {
        const found = await reopened(opened.storage.afterPowerFailure(index, random), NEXT_BOOT);
        const wrong = allowedAt(index, initially, events, true).wrongSector(found);
        if (wrong !== undefined)
          throw new Error(`seed ${seed}: sector ${wrong} in round ${round} after ${index}`);
      }
    }
  }, 60_000);
});

test("the recent map of another boot counts for nothing, also later", async () => {
  const { storage, cow } = open();
  void cow.write?.(new Uint8Array(BLOCK).fill(7), 0, PLAIN);
  const next = open(storage.image, NEXT_BOOT);
  expect(Buffer.compare(await contents(next.cow), DATA)).toBe(0);
  expect(Buffer.compare(await contents(open(next.storage.image, NEXT_BOOT).cow), DATA)).toBe(0);
});

test("where no boot has a name, only what was flushed counts", async () => {
  const unknown = new Uint8Array(16).fill(0xff);
  const { storage, cow } = open(undefined, unknown);
  void cow.write?.(new Uint8Array(BLOCK).fill(7), 0, PLAIN);
  expect(Buffer.compare(await contents(open(storage.image, unknown).cow), DATA)).toBe(0);
});

test.each<[string, Image | undefined, number]>([
  ["made", undefined, 3],
  ["made by version 1", versionOne(), 5],
  ["made by version 1, with nothing in it", versionOne(false), 3],
])(
  "the maps of a file %s have their space: a full disk refuses the write that does not fit",
  async (_, file, taken) => {
    const first = open(file, BOOT, taken + 3);
    const expected = await contents(first.cow);
    let written = 0;
    const failure = errnoError(() => {
      for (let block = 4; block < BLOCKS; block += 1) {
        void first.cow.write?.(new Uint8Array(BLOCK).fill(block), block * BLOCK, PLAIN);
        expected.fill(block, block * BLOCK, (block + 1) * BLOCK);
        written += 1;
      }
    });
    expect(failure.code).toBe("ENOSPC");
    expect(written).toBe(3);
    void first.cow.close?.();
    const second = open(first.storage.image, NEXT_BOOT, taken + 3);
    expect(Buffer.compare(await contents(second.cow), expected)).toBe(0);
  },
);

test("a file that its maps do not fit is left as it was", () => {
  const old = new RecordedStorage(versionOne(), 4);
  expect(userError(() => new FileOverlay(old, SIZE, BOOT))).toContain(
    "choose a file system with room for it",
  );
  expect(Buffer.compare(old.image.bytes, versionOne().bytes)).toBe(0);
  const empty = new RecordedStorage(undefined, 2);
  expect(userError(() => new FileOverlay(empty, SIZE, BOOT))).toContain(
    "choose a file system with room for it",
  );
  expect(empty.length()).toBe(0);
});

test("a block that is mapped already needs one fdatasync", () => {
  const { storage, cow } = open();
  const flushesOf = (offset: number): number => {
    void cow.write?.(new Uint8Array(SECTOR), offset, PLAIN);
    const before = storage.flushes;
    void cow.flush?.();
    return storage.flushes - before;
  };
  expect([0, SECTOR, BLOCK, BLOCK].map(flushesOf)).toEqual([2, 1, 2, 1]);
});

describe.each([1, 2])("when fdatasync number %d of a flush has failed", (which) => {
  test("no change and no flush succeeds any more, and reads do; only what was flushed before counts later", async () => {
    const { storage, cow } = open();
    void cow.write?.(new Uint8Array(BLOCK).fill(1), 0, PLAIN);
    void cow.flush?.();
    void cow.write?.(new Uint8Array(BLOCK).fill(2), BLOCK, PLAIN);
    const failure = new ErrnoError("ENOSPC", "fdatasync of overlay: No space left on device");
    if (which === 1) storage.flushFailure = failure;
    else failSecondFlush(storage, failure);
    expect(errnoError(() => cow.flush?.())).toMatchObject({
      code: "ENOSPC",
      message: expect.stringMatching(
        /^fdatasync of overlay: No space left on device: .* changes are refused; /,
      ),
    });
    const changes: (() => unknown)[] = [
      () => cow.write?.(new Uint8Array(BLOCK), 0, PLAIN),
      () => cow.write?.(new Uint8Array(SECTOR), 3 * BLOCK, PLAIN),
      () => cow.trim?.(0, BLOCK, PLAIN),
      () => cow.writeZeroes?.(0, BLOCK, HOLE),
      () => cow.flush?.(),
    ];
    for (const change of changes)
      expect(errnoError(change)).toMatchObject({ code: "EIO", name: "RepeatedError" });
    expect((await contents(cow)).subarray(0, 2 * BLOCK)).toEqual(
      changed((bytes) => bytes.fill(1, 0, BLOCK).fill(2, BLOCK, 2 * BLOCK)).subarray(0, 2 * BLOCK),
    );
    expect(errnoError(() => cow.close?.())).toMatchObject({ code: "EIO" });
    const found = await contents(open(storage.image, BOOT).cow);
    expect(Buffer.compare(found.subarray(0, BLOCK), new Uint8Array(BLOCK).fill(1))).toBe(0);
    // The map may have reached the disk, once its data has.
    const isThere = which === 2;
    const expected = isThere ? new Uint8Array(BLOCK).fill(2) : DATA.subarray(BLOCK, 2 * BLOCK);
    expect(Buffer.compare(found.subarray(BLOCK, 2 * BLOCK), expected)).toBe(0);
  });
});

function failSecondFlush(storage: RecordedStorage, failure: ErrnoError): void {
  const flush = storage.flush.bind(storage);
  storage.flush = () => {
    flush();
    storage.flushFailure = failure;
  };
}
