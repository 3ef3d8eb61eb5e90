/** Reads objects of the log. */
import { DamageError, decodeHead, HEAD_BYTES, type Head, type LogPlace, logKey } from "./format.ts";
import type { ObjectStore } from "./parts.ts";
import { StoreError } from "./store-error.ts";

/** An answer may be damaged on its way: how often to read before the object counts as damaged. */
const TRIES = 6;

/**
 * The header and the tables of the object at `place`; undefined when it does not exist.
 * @throws StoreError when it is damaged.
 */
export async function readHead(
  store: ObjectStore,
  disk: string,
  place: LogPlace,
  signal?: AbortSignal,
): Promise<Head | undefined> {
  const key = logKey(place);
  return undamaged(store.name, key, async () => {
    const bytes = await store.get(key, 0, HEAD_BYTES, signal);
    if (bytes === undefined) return undefined;
    const head = decodeHead(bytes, disk);
    if (head.number !== place.number) throw new DamageError("belongs to another place");
    return head;
  });
}

/** Repeats a read whose answer was damaged. @throws StoreError when it stays damaged. */
export async function undamaged<T>(store: string, key: string, read: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await read();
    } catch (error) {
      if (!(error instanceof DamageError)) throw error;
      if (tries === TRIES) throw new StoreError("refused", `${store}/${key} ${error.message}`);
    }
  }
}
