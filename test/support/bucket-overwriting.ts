/** The cost of overwriting a disk in a bucket: bytes sent for each byte written, and bytes stored for each live one. */
import type { BucketOptions } from "../../devices/bucket/device.ts";
import { openBucket } from "../../devices/bucket/open-bucket.ts";
import { BLOCK_BYTES, type Listed, type ObjectStore, type PutResult } from "../../devices/bucket/parts.ts";
import { Random } from "./random.ts";

const MIB = 2 ** 20;
/** Blocks of each overwriting write. */
const BLOCKS = 4;

/** How long a store takes to answer, and for each MiB transferred, in milliseconds. */
export interface Speed {
  readonly answerMs: number;
  readonly mibMs: number;
}

/** A store in memory that delays its answers, and counts. */
class CountingStore implements ObjectStore {
  readonly name = "memory";
  readonly #objects = new Map<string, Uint8Array>();
  sentBytes = 0;
  puts = 0;

  constructor(readonly speed: Speed) {}

  get storedBytes(): number {
    let bytes = 0;
    for (const { length } of this.#objects.values()) bytes += length;
    return bytes;
  }

  async create(key: string, body: Uint8Array, signal?: AbortSignal): Promise<PutResult> {
    const object = body.slice();
    await this.#wait(body.length);
    signal?.throwIfAborted();
    if (this.#objects.has(key)) return "exists";
    this.#objects.set(key, object);
    this.sentBytes += body.length;
    this.puts += 1;
    return "created";
  }

  async get(
    key: string,
    start: number,
    length: number,
    signal?: AbortSignal,
  ): Promise<Uint8Array | undefined> {
    const bytes = this.#objects.get(key)?.slice(start, start + length);
    await this.#wait(bytes?.length ?? 0);
    signal?.throwIfAborted();
    return bytes;
  }

  async *list(prefix: string, _?: string, signal?: AbortSignal): AsyncIterable<Listed> {
    signal?.throwIfAborted();
    for (const key of [...this.#objects.keys()].toSorted())
      if (key.startsWith(prefix)) yield { key, size: this.#objects.get(key)?.length ?? 0 };
  }

  async remove(key: string, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    this.#objects.delete(key);
  }

  #wait(bytes: number): Promise<void> {
    return Bun.sleep(this.speed.answerMs + (bytes / MIB) * this.speed.mibMs);
  }
}

export interface Overwriting {
  /** Bytes of the disk that are overwritten repeatedly, and the total written as a multiple of that. */
  readonly bytes: number;
  readonly times: number;
  readonly speed: Speed;
  readonly seed: number;
  readonly options: Partial<BucketOptions>;
}

export interface OverwritingCost {
  /** Bytes sent for each byte written. */
  readonly amplification: number;
  /** Bytes stored at the end for each live byte. */
  readonly stored: number;
  /** PUTs for each GiB written. */
  readonly puts: number;
}

/** Fills the disk and overwrites it at random. Only the second half of the overwriting counts. */
export async function overwrite(work: Overwriting): Promise<OverwritingCost> {
  const { bytes, times, speed, seed, options } = work;
  const store = new CountingStore(speed);
  const disk = await openBucket(store, { create: bytes, log: (line) => console.error(line), ...options });
  const random = new Random(seed);
  const data = new Uint8Array(BLOCKS * BLOCK_BYTES);
  for (let at = 0; at < bytes; at += data.length) await disk.write?.(data, at);
  const total = (bytes * times) / 2;
  const writeTotal = async (): Promise<void> => {
    for (let done = 0; done < total; done += data.length)
      await disk.write?.(data, random.below(bytes / data.length) * data.length);
    await disk.flush?.();
  };
  await writeTotal();
  const before = { bytes: store.sentBytes, puts: store.puts };
  await writeTotal();
  const cost = {
    amplification: (store.sentBytes - before.bytes) / total,
    stored: store.storedBytes / bytes,
    puts: (store.puts - before.puts) / (total / 2 ** 30),
  };
  await disk.close();
  return cost;
}
