/** The parts that a disk in a bucket is made of, as the others see them. */

/** Bytes of a block, the unit of the map and of every request. */
export const BLOCK_BYTES = 4096;
/** Blocks of a chunk, the unit of compression, of checksums and of the cache; a segment may end with a shorter one. */
export const CHUNK_BLOCKS = 16;
/** Blocks that a segment holds at most: slots 0 to 4095. */
export const SEGMENT_BLOCKS_MAX = 4096;
/** Bytes of a disk at most, 256 TiB: a million pages of a checkpoint. */
export const DISK_BYTES_MAX = 2 ** 48;

/** Bytes of a page of the map, which is an object. */
export const PAGE_BYTES_MAX = 4 * 2 ** 20;

/** What a PUT that must not replace anything came to. */
export type PutResult = "created" | "exists";

/** One object of a listing. */
export interface Listed {
  readonly key: string;
  /** Bytes. */
  readonly size: number;
}

/**
 * The objects below a prefix. A method tries again, with back-off, what may succeed later, until `signal` says stop;
 * what it throws in the end is a StoreError. Keys are relative to the prefix: `log/00000001.ab12`.
 */
export interface ObjectStore {
  /** For messages and identities: `s3://BUCKET/PREFIX`, without credentials. */
  readonly name: string;
  /**
   * Makes an object that must not exist (`If-None-Match: *`). After an answer was lost, `exists` may mean that an
   * earlier try of this very call succeeded: the caller looks. `body` is lent until the call is done.
   */
  create(key: string, body: Uint8Array<ArrayBuffer>, signal?: AbortSignal): Promise<PutResult>;
  /** The bytes from `start`, at most `length` of them; undefined when there is no such object. */
  get(key: string, start: number, length: number, signal?: AbortSignal): Promise<Uint8Array | undefined>;
  /** All objects whose key begins with `prefix`, in the order of their keys, from after the key `after`. */
  list(prefix: string, after?: string, signal?: AbortSignal): AsyncIterable<Listed>;
  /** Done as well when there is no such object. */
  remove(key: string, signal?: AbortSignal): Promise<void>;
}

/**
 * Where each block lies: block-map.ts. Blocks are numbered from 0; a place is a segment's index, dense and recycled,
 * and a slot in it. All methods are synchronous.
 */
export interface BlockMapShape {
  /** Blocks of the disk. */
  readonly blocks: number;
  /** Resident bytes of the map. */
  readonly memoryBytes: number;
  /** Blocks that are mapped. */
  readonly liveBlocks: number;
  /** A free index for the segment of this number. @throws RangeError when all are taken. */
  addSegment(number: number): number;
  /** Frees an index, whose segment has no live block. */
  removeSegment(index: number): void;
  /** The number of the segment of an index; undefined for a free one. */
  segmentNumber(index: number): number | undefined;
  /** How many blocks of a segment are live. */
  liveIn(index: number): number;
  /** Every index in use. */
  segments(): IterableIterator<number>;
  /** Maps `count` blocks from `block` on to consecutive slots from `slot` on. */
  set(block: number, count: number, index: number, slot: number): void;
  /** Makes holes. Of a range of any length it costs no more than what is mapped in it. */
  clear(block: number, count: number): void;
  /**
   * Looks at `block`: returns the length of the run, 1 to `count`, of holes or of consecutive slots of one segment,
   * and leaves where it lies in {@link foundIndex} and {@link foundSlot}.
   */
  find(block: number, count: number): number;
  /** Of the last `find`: the segment's index, or -1 for a hole. */
  readonly foundIndex: number;
  readonly foundSlot: number;
  /**
   * The map in pieces of at most 4 MiB, compressed and with a checksum each, for a checkpoint. The map may change
   * between two pieces: a block that does may be in a piece as it was before, or as it is after.
   */
  pages(): IterableIterator<Uint8Array<ArrayBuffer>>;
  /** Takes in a piece made by `pages`. @throws Error for a damaged one. */
  load(page: Uint8Array): void;
}

/** `later`: once {@link WriteNotes.roomy} is done; `never`: what follows must be of the next segment. */
export type NotesRoom = "now" | "later" | "never";

/** Takes note of what is written to a disk before it is in the bucket: journal.ts. */
export interface WriteNotes {
  /** Whether a change of segment `number` that writes so many blocks can be noted, as a whole. */
  roomFor(number: number, blocks: number): NotesRoom;
  roomy(): Promise<void>;
  /** `count` blocks from `block` on become `data`, which is copied, or holes where there is none. */
  note(number: number, block: number, count: number, data?: Uint8Array): void;
  /** The segments up to this number are in the bucket. */
  committed(number: number): void;
}

/** Chunks of committed segments, in memory or in a directory: cache.ts. */
export interface ChunkCacheShape {
  /**
   * Copies `target.length` bytes from byte `at` of a chunk. `key` names the chunk for ever: what it holds never
   * changes. `load` brings the whole chunk when the cache does not have it; those who want the same chunk at the same
   * time share one load. Rejects only as `load` does.
   */
  read(key: string, at: number, target: Uint8Array, load: () => Promise<Uint8Array>): Promise<void>;
  /** Loads a chunk that is likely to be read soon, unless it is there or too many are on their way. */
  fetchAhead(key: string, load: () => Promise<Uint8Array>): void;
  has(key: string): boolean;
  close(): Promise<void>;
}
