/** Counting what the JavaScript heap gets while something runs. */
import { heapStats } from "bun:jsc";

export interface Allocations {
  /** Objects of all types that were made, less those that the engine's own count costs. */
  readonly objects: number;
  /** The three types that grew most, for a message. */
  readonly types: string;
  /** Whether garbage was collected meanwhile, which would hide objects from the count. */
  readonly collected: boolean;
}

const CANARIES = 100;
const TRIES = 20;
/** How often the work is done again because garbage was collected meanwhile. */
const WORK_TRIES = 4;

/** Runs `work` in one turn of the event loop, perhaps several times. */
export async function countAllocations(work: () => void): Promise<Allocations> {
  Bun.gc(true);
  const cost = growth(typeCounts(), typeCounts());
  for (let tries = 0; tries < TRIES; tries += 1) {
    const [early, late] = [releaseCanaries(), releaseCanaries()];
    // A WeakRef's target lives at least until the turn of the event loop ends in which it was made.
    await Bun.sleep(0);
    const before = typeCounts();
    // The runtime may have collected in that turn. To ask a canary prolongs its life, so there are two flocks.
    if (anyDead(early)) continue;
    work();
    const grown = growth(before, typeCounts());
    // A collection that the runtime began in that turn may end in this one; one that the work causes comes every time.
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

/** Objects that nothing but the next collection sees. */
function releaseCanaries(): WeakRef<object>[] {
  return Array.from({ length: CANARIES }, (_, index) => new WeakRef({ index }));
}
