/** Reads chunks of segments in the bucket. Neighbours that are requested at once are fetched together. */
import { type ChunkTable, DamageError, HEAD_BYTES, decodeHead, type LogPlace, logKey } from "./format.ts";
import { undamaged } from "./log-reader.ts";
import { unpack } from "./packing.ts";
import type { Sources } from "./sources.ts";

/** The most tables to keep: about 2 KiB each. */
const TABLES_MAX = 16_384;
/** The most bytes to fetch at once. */
const FETCH_BYTES_MAX = 4 * 2 ** 20;

/** The object is missing: its segment was removed because nothing needed it any more. */
export class GoneError extends Error {
  override readonly name = "GoneError";
}

interface Wanted {
  readonly chunk: number;
  readonly promise: Promise<Uint8Array>;
  readonly resolve: (bytes: Uint8Array) => void;
  readonly reject: (error: unknown) => void;
}

export class ChunkReader {
  readonly #tables = new Map<string, Promise<ChunkTable>>();
  /** Chunks requested of each object since the last turn of the event loop. */
  #wanted = new Map<string, Map<number, Wanted>>();
  readonly #closed = new AbortController();

  constructor(readonly sources: Sources) {}

  /** Gives up what is being read, and what is asked for later: requests would wait for a store that is away. */
  close(): void {
    this.#closed.abort();
  }

  /**
   * The blocks of a chunk of the segment at `place`. Callers share the array and must not change it.
   * @throws GoneError, StoreError
   */
  load(place: LogPlace, chunk: number): Promise<Uint8Array> {
    const key = logKey(place);
    if (this.#wanted.size === 0) setImmediate(this.#fetchWanted);
    const chunks = this.#wanted.get(key) ?? new Map<number, Wanted>();
    this.#wanted.set(key, chunks);
    const wanted = chunks.get(chunk) ?? { chunk, ...Promise.withResolvers<Uint8Array>() };
    chunks.set(chunk, wanted);
    return wanted.promise;
  }

  readonly #fetchWanted = (): void => {
    const all = this.#wanted;
    this.#wanted = new Map();
    for (const [key, chunks] of all) {
      const wanted = [...chunks.values()];
      this.#fetchAll(key, wanted).catch((error: unknown) => wanted.forEach(({ reject }) => reject(error)));
    }
  };

  async #fetchAll(key: string, wanted: readonly Wanted[]): Promise<void> {
    const table = await this.#table(key);
    const sorted = wanted.toSorted((a, b) => a.chunk - b.chunk);
    const fetches: Promise<void>[] = [];
    for (let first = 0, next = 1; first < sorted.length; next += 1) {
      if (next < sorted.length && areTogether(table, sorted[first], sorted[next - 1], sorted[next])) continue;
      fetches.push(this.#fetch(key, table, sorted.slice(first, next)));
      first = next;
    }
    await Promise.all(fetches);
  }

  #fetch(key: string, table: ChunkTable, run: readonly Wanted[]): Promise<void> {
    const start = startOf(table, run[0]);
    const end = endOf(table, run.at(-1));
    const { store } = this.sources.ofKey(key);
    return undamaged(store.name, key, async () => {
      const bytes = await store.get(key, start, end - start, this.#closed.signal);
      if (bytes === undefined) throw new GoneError(`${store.name}/${key} is gone`);
      if (bytes.length !== end - start) throw new DamageError("is too short");
      await Promise.all(
        run.map(async (wanted) => {
          const chunk = bytes.subarray(startOf(table, wanted) - start, endOf(table, wanted) - start);
          wanted.resolve(await unpack(chunk, table, wanted.chunk));
        }),
      );
    });
  }

  #table(key: string): Promise<ChunkTable> {
    const known = this.#tables.get(key);
    if (known !== undefined) return known;
    const table = this.#readTable(key);
    this.#tables.set(key, table);
    table.catch(() => this.#tables.delete(key));
    if (this.#tables.size > TABLES_MAX) this.#tables.delete(this.#tables.keys().next().value ?? "");
    return table;
  }

  #readTable(key: string): Promise<ChunkTable> {
    const { store, disk } = this.sources.ofKey(key);
    return undamaged(store.name, key, async () => {
      const bytes = await store.get(key, 0, HEAD_BYTES, this.#closed.signal);
      if (bytes === undefined) throw new GoneError(`${store.name}/${key} is gone`);
      const head = decodeHead(bytes, disk);
      if (head.kind !== "segment") throw new DamageError("is no segment");
      return head.chunks;
    });
  }
}

function startOf({ offsets }: ChunkTable, wanted: Wanted | undefined): number {
  return offsets[wanted?.chunk ?? 0] ?? 0;
}

function endOf({ offsets }: ChunkTable, wanted: Wanted | undefined): number {
  return offsets[(wanted?.chunk ?? 0) + 1] ?? 0;
}

function areTogether(
  table: ChunkTable,
  first: Wanted | undefined,
  last: Wanted | undefined,
  next: Wanted | undefined,
): boolean {
  const gap = (next?.chunk ?? 0) - (last?.chunk ?? 0);
  return gap <= 1 && endOf(table, next) - startOf(table, first) <= FETCH_BYTES_MAX;
}
