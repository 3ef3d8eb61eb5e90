/** Where the segments of a disk are: below its own prefix, or, for those that a clone shares, below another. */
import { UserError } from "tsbuse";
import { placeOf, SNAPSHOT_PREFIX } from "./format.ts";
import type { ObjectStore } from "./parts.ts";
import { type DiskRecord, type Origin, readSnapshot } from "./records.ts";

/** Opens the objects below another prefix of the same bucket. */
export type Beside = (prefix: string) => ObjectStore;

interface Source {
  readonly store: ObjectStore;
  /** The disk that the log belongs to. */
  readonly disk: string;
}

export class Sources {
  readonly #own: Source;
  readonly #others: readonly (Source & Pick<Origin, "until">)[];

  constructor(store: ObjectStore, { id, origins = [] }: Pick<DiskRecord, "id" | "origins">, beside?: Beside) {
    this.#own = { store, disk: id };
    this.#others = origins.map(({ prefix, disk, until }) => ({
      store: mustReach(store, beside)(prefix),
      disk,
      until,
    }));
  }

  /** The source of an object of the log. */
  ofKey(key: string): Source {
    const number = placeOf(key)?.number ?? Infinity;
    return this.#others.find(({ until }) => number <= until) ?? this.#own;
  }

  /** Whether the segment of this number belongs to this disk. */
  isOwn(number: number): boolean {
    return number > (this.#others.at(-1)?.until ?? 0);
  }
}

/** Checks that everything that a clone shares is still kept for it. @throws UserError */
export async function mustBeKept(
  store: ObjectStore,
  { origins = [] }: DiskRecord,
  beside?: Beside,
): Promise<void> {
  for (const { prefix, snapshot } of origins) {
    const origin = mustReach(store, beside)(prefix);
    if ((await readSnapshot(origin, SNAPSHOT_PREFIX + snapshot)) === undefined)
      throw new UserError(
        `${store.name} is a clone that was not completed, or ${origin.name} keeps nothing for it any more: delete its objects, and make it again`,
      );
  }
}

export function mustReach(store: ObjectStore, beside: Beside | undefined): Beside {
  if (beside === undefined) throw new Error(`${store.name} is a clone, and its origin is out of reach`);
  return beside;
}
