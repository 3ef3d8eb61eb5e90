/** What the parts of a disk in a bucket know of each other. */

/** Bytes in a block, the unit of the map and of every request. */
export const BLOCK_BYTES = 4096;
/**
 * Blocks in a chunk, the unit of compression, of checksums and of the cache. A segment may end with a shorter chunk.
 */
export const CHUNK_BLOCKS = 16;
/** The most blocks in a segment: slots 0 to 4095. */
export const SEGMENT_BLOCKS_MAX = 4096;
/** The most bytes of a disk, 256 TiB: a million pages of a checkpoint. */
export const DISK_BYTES_MAX = 2 ** 48;

/** The most bytes of a page of the map, which is an object. */
export const PAGE_BYTES_MAX = 4 * 2 ** 20;

/** The result of a PUT that must not replace anything. */
export type PutResult = "created" | "exists";

/** One object of a listing. */
export interface Listed {
  readonly key: string;
  /** In bytes. */
  readonly size: number;
}

/**
 * The objects below a prefix. Methods repeat what may succeed later, with back-off, until `signal` aborts. What they
 * finally throw is a StoreError. Keys are relative to the prefix: `log/00000001.ab12`.
 */
export interface ObjectStore {
  /** For messages and identities: `s3://BUCKET/PREFIX`, without credentials. */
  readonly name: string;
  /**
   * Makes an object that must not exist (`If-None-Match: *`). After a lost answer, `exists` may mean that an earlier
   * try of this very call succeeded: the caller checks. `body` is lent until the call is done.
   */
  create(key: string, body: Uint8Array<ArrayBuffer>, signal?: AbortSignal): Promise<PutResult>;
  /** At most `length` bytes from `start`; undefined when there is no such object. */
  get(key: string, start: number, length: number, signal?: AbortSignal): Promise<Uint8Array | undefined>;
  /** All objects whose keys begin with `prefix`, sorted by key, after the key `after`. */
  list(prefix: string, after?: string, signal?: AbortSignal): AsyncIterable<Listed>;
  /** Removes an object. Succeeds as well when there is none. */
  remove(key: string, signal?: AbortSignal): Promise<void>;
}

/**
 * Where each block lies: block-map.ts. Blocks are numbered from 0. A place is the index of a segment, dense and
 * recycled, and a slot in it. All methods are synchronous.
 */
export interface BlockMapShape {
  /** Blocks in the disk. */
  readonly blocks: number;
  /** Resident bytes of the map. */
  readonly memoryBytes: number;
  /** Mapped blocks. */
  readonly liveBlocks: number;
  /** Returns a free index for the segment of this number. @throws RangeError when all are taken. */
  addSegment(number: number): number;
  /** Frees an index whose segment has no live block. */
  removeSegment(index: number): void;
  /** The number of the segment with this index; undefined for a free index. */
  segmentNumber(index: number): number | undefined;
  /** How many blocks of a segment are live. */
  liveIn(index: number): number;
  /** Every index in use. */
  segments(): IterableIterator<number>;
  /** Maps `count` blocks from `block` on to consecutive slots from `slot` on. */
  set(block: number, count: number, index: number, slot: number): void;
  /** Makes holes. The cost depends on what is mapped in the range, not on its length. */
  clear(block: number, count: number): void;
  /**
   * Looks up `block`. Returns the length, 1 to `count`, of the run of holes or of consecutive slots of one segment, and
   * sets {@link foundIndex} and {@link foundSlot}.
   */
  find(block: number, count: number): number;
  /** Set by `find`: the segment's index, or -1 for a hole. */
  readonly foundIndex: number;
  readonly foundSlot: number;
  /**
   * The map in pieces of at most 4 MiB for a checkpoint, each compressed and with a checksum. The map may change
   * between two pieces: a block that changes may appear as it was before or after.
   */
  pages(): IterableIterator<Uint8Array<ArrayBuffer>>;
  /** Loads a piece made by `pages`. @throws Error for a damaged one. */
  load(page: Uint8Array): void;
}

/** `later`: once {@link WriteNotes.roomy} is done. `never`: the change must go to the next segment. */
export type NotesRoom = "now" | "later" | "never";

/** Records what is written to a disk before it is in the bucket: journal.ts. */
export interface WriteNotes {
  /** Whether a change of segment `number` that writes this many blocks can be noted as a whole. */
  roomFor(number: number, blocks: number): NotesRoom;
  roomy(): Promise<void>;
  /** Notes that `count` blocks from `block` on become `data`, which is copied, or holes without it. */
  note(number: number, block: number, count: number, data?: Uint8Array): void;
  /** Notes that the segments up to this number are in the bucket. */
  committed(number: number): void;
}

/** Chunks of committed segments, in memory or in a directory: cache.ts. */
export interface ChunkCacheShape {
  /**
   * Copies `target.length` bytes from byte `at` of a chunk. `key` names the chunk for ever: its contents never change.
   * `load` fetches the whole chunk when it is not cached; simultaneous reads of one chunk share one load. Rejects only
   * if `load` does.
   */
  read(key: string, at: number, target: Uint8Array, load: () => Promise<Uint8Array>): Promise<void>;
  /** Loads a chunk that is likely to be read soon, unless it is cached or too many are being fetched. */
  fetchAhead(key: string, load: () => Promise<Uint8Array>): void;
  has(key: string): boolean;
  close(): Promise<void>;
}
