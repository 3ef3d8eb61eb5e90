/**
 * Counts objects added to the JavaScript heap while a request loop runs, which must make no object per request. After a
 * million requests the heap has as many objects as before, with no collection in between.
 */
import { describe, expect, test } from "bun:test";
import { heapStats } from "bun:jsc";
import { Ramdisk } from "../../devices/ramdisk.ts";
import type { BlockDevice } from "../../src/device.ts";

const REQUESTS = 1_000_000;
const WARM_UP = 300_000;
/** The engine makes some objects of its own: code blocks, structures. One per request would be a million. */
const OBJECTS_MAX = 2000;
const TIMEOUT_MS = 60_000;
/** The smallest size of the devices here, in bytes. */
export const DEVICE_BYTES = 2 ** 20;

/** A request loop, its device and its peer. */
export interface RequestLoop {
  /** Makes the loop answer at least `count` requests, and allocates nothing itself. */
  serve(count: number): void;
  answered(): number;
  close(): void | Promise<void>;
}

class RamdiskWithFlush extends Ramdisk {
  flush(): void {
    // Memory has nothing to flush.
  }
}

/** The RAM disk without its memory window. */
function plain(): BlockDevice {
  const disk = new RamdiskWithFlush(DEVICE_BYTES);
  return {
    size: disk.size,
    read: (target, offset) => disk.read(target, offset),
    write: (source, offset) => disk.write(source, offset),
    flush: () => undefined,
    trim: (offset, length) => disk.trim(offset, length),
    close: () => disk.close(),
  };
}

/** A device that makes an object per read, as a mistake in a request loop would. */
function wasteful(): BlockDevice {
  const disk = plain();
  let last: object = {};
  const read: BlockDevice["read"] = (target, offset) => {
    last = { after: Object.keys(last).length, offset };
    return disk.read(target, offset);
  };
  return { ...disk, read };
}

/** The tests of a request loop. */
export function describeAllocations(name: string, open: (device: BlockDevice) => RequestLoop): void {
  const measure = async (device: BlockDevice): Promise<Allocations> => {
    const loop = open(device);
    try {
      loop.serve(WARM_UP);
      const allocations = await countAllocations(() => loop.serve(REQUESTS));
      expect(loop.answered()).toBeGreaterThanOrEqual(WARM_UP + REQUESTS);
      return allocations;
    } finally {
      await loop.close();
      await device.close?.();
    }
  };

  describe(name, () => {
    test.each<[string, () => BlockDevice]>([
      ["plain", plain],
      ["memory", () => new RamdiskWithFlush(DEVICE_BYTES)],
    ])(
      "a million requests to a %s device leave the heap as it was",
      async (_, make) => {
        const { objects, types, collected } = await measure(make());
        expect(collected).toBe(false);
        if (objects > OBJECTS_MAX) expect(types).toBe("no objects");
      },
      TIMEOUT_MS,
    );

    test(
      "the measure sees a device that allocates one object per read",
      async () => {
        const { objects, collected } = await measure(wasteful());
        expect(collected || objects > REQUESTS / 4).toBe(true);
      },
      TIMEOUT_MS,
    );
  });
}

interface Allocations {
  /** The number of new objects of all types, without those that counting makes. */
  readonly objects: number;
  /** The three types that grew the most, for a message. */
  readonly types: string;
  /** Whether garbage was collected meanwhile, which would hide objects from the count. */
  readonly collected: boolean;
}

const CANARIES = 100;
const TRIES = 20;
/** How often to try the work, because garbage may be collected meanwhile. */
const WORK_TRIES = 4;

/** Runs `work` in one turn of the event loop, perhaps several times. */
async function countAllocations(work: () => void): Promise<Allocations> {
  Bun.gc(true);
  const cost = growth(typeCounts(), typeCounts());
  for (let tries = 0; tries < TRIES; tries += 1) {
    const [early, late] = [releaseCanaries(), releaseCanaries()];
    // The target of a WeakRef lives at least to the end of the turn in which it was made.
    await Bun.sleep(0);
    const before = typeCounts();
    // The runtime may have collected in that turn. Checking a canary prolongs its life, so there are two flocks.
    if (anyDead(early)) continue;
    work();
    const grown = growth(before, typeCounts());
    // A collection begun in that turn may end in this one, by chance; one that the work causes happens every time.
    const collected = anyDead(late);
    if (collected && tries < WORK_TRIES) continue;
    const types = Object.entries(grown).toSorted(([, one], [, other]) => other - one);
    return {
      objects: total(grown) - total(cost),
      types: JSON.stringify(types.slice(0, 3)),
      collected,
    };
  }
  throw new Error("the runtime collects garbage in every turn of the event loop");
}

function anyDead(canaries: readonly WeakRef<object>[]): boolean {
  return canaries.some((canary) => canary.deref() === undefined);
}

type Counts = Readonly<Record<string, number>>;

/** The objects on the heap by type, garbage included. */
function typeCounts(): Counts {
  return heapStats().objectTypeCounts;
}

function growth(before: Counts, after: Counts): Counts {
  return Object.fromEntries(
    Object.entries(after).map(([type, count]) => [type, count - (before[type] ?? 0)]),
  );
}

function total(counts: Counts): number {
  return Object.values(counts).reduce((sum, count) => sum + count, 0);
}

/** Objects that the next collection will free. */
function releaseCanaries(): WeakRef<object>[] {
  return Array.from({ length: CANARIES }, (_, index) => new WeakRef({ index }));
}
