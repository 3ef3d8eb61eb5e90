/** An overlay in a sparse file, which keeps its contents until it is opened again. */
import { ErrnoError, errnoOf, messageOf, RepeatedError, UserError } from "../errors.ts";
import { BlockMap, MAP_PAGE } from "./block-map.ts";
import { blocksOf, type Overlay } from "./overlay.ts";
import {
  CLOSED,
  bootOn,
  decodeHeader,
  encodeHeader,
  encodeNumber,
  field,
  type Header,
  HEADER_BYTES,
  type Layout,
  layoutFor,
  NO_BOOT,
  state,
  VERSION,
} from "./overlay-format.ts";
import { FileStorage, type OverlayStorage } from "./overlay-storage.ts";

/** The recent map is compared in pieces of this many bytes. */
const PIECE_BYTES = 64 * MAP_PAGE;

/**
 * Neither map in the file is ever ahead of the data: a change stores its data and then the recent map, and a flush
 * makes the data durable first and then the map. So acknowledged changes survive the death of the process, and flushed
 * ones that of the system.
 */
export class FileOverlay implements Overlay {
  readonly map: BlockMap;
  readonly identity: string;
  readonly #layout: Layout;
  readonly #storage: OverlayStorage;
  readonly #boot: Uint8Array;
  #fingerprint: Uint8Array | undefined;
  #hasFailed = false;

  /** @throws UserError if the file is no overlay, belongs to another device, or is in use. */
  static open(path: string, size: number): FileOverlay {
    const storage = new FileStorage(path);
    try {
      return new FileOverlay(storage, size, bootOn(storage.device));
    } catch (error) {
      storage.abandon();
      if (!(error instanceof ErrnoError)) throw error;
      throw new UserError(`${error.message}: check the disk that it lies on`, { cause: error });
    }
  }

  /**
   * @param size of the device, in bytes.
   * @param boot distinguishes the death of a process from that of the system: see {@link bootOn}.
   * @throws UserError
   */
  constructor(storage: OverlayStorage, size: number, boot: Uint8Array) {
    const blocks = blocksOf(size);
    this.#layout = layoutFor(size, blocks);
    this.map = new BlockMap(blocks);
    this.#storage = storage;
    this.#boot = boot;
    this.identity = storage.identity;
    const header = this.#readHeader();
    if (header === undefined) this.#make();
    else this.#load(header);
    this.#fingerprint = header?.fingerprint;
    this.#storage.write(boot, field.boot);
  }

  checkBase(fingerprint: Uint8Array): void {
    if (this.#fingerprint === undefined) {
      this.#fingerprint = fingerprint;
      this.#storage.write(fingerprint, field.fingerprint);
      this.#storage.write(encodeNumber(state.fingerprinted), field.state);
    } else if (Buffer.compare(fingerprint, this.#fingerprint) !== 0) {
      throw new UserError(
        `${this.#storage.path} is an overlay of a device with other contents: give the one it was made for`,
      );
    }
  }

  /** Stores the blocks in the recent map, which a later process needs, before the change is acknowledged. */
  own(first: number, end: number): void {
    this.map.add(first, end);
    if (this.map.isRecent) this.map.storeRecent(this.#writeRecent);
  }

  read(target: Uint8Array, offset: number): void {
    this.#storage.read(target, this.#layout.dataOffset + offset);
  }

  write(source: Uint8Array, offset: number): void {
    this.#mustBeSound();
    this.#storage.write(source, this.#layout.dataOffset + offset);
  }

  discard(offset: number, length: number): void {
    this.#mustBeSound();
    this.#storage.discard(this.#layout.dataOffset + offset, length);
  }

  zero(offset: number, length: number): void {
    this.#mustBeSound();
    this.#storage.zero(this.#layout.dataOffset + offset, length);
  }

  flush(): void {
    this.#mustBeSound();
    this.#makeDurable();
    if (!this.map.isChanged) return;
    this.map.storeChanges(this.#writeMap);
    this.#makeDurable();
  }

  close(): void {
    try {
      this.flush();
      this.#storage.write(CLOSED, field.boot);
    } finally {
      this.#storage.close();
    }
  }

  readonly #writeMap = (bytes: Uint8Array, offset: number): void =>
    this.#storage.write(bytes, this.#layout.mapOffset + offset);

  readonly #writeRecent = (bytes: Uint8Array, offset: number): void =>
    this.#storage.write(bytes, this.#layout.recentOffset + offset);

  #readHeader(): Header | undefined {
    const { path } = this.#storage;
    const length = this.#storage.length();
    const header = new Uint8Array(new ArrayBuffer(HEADER_BYTES));
    this.#storage.read(header.subarray(0, length), 0);
    return decodeHeader(path, header, this.#layout, length);
  }

  /** Until the state says that the file is made, it holds nothing, and can be made anew. */
  #make(): void {
    const { mapOffset, recentOffset, fileSize } = this.#layout;
    this.#needingRoom(0, () => {
      this.#storage.resize(0);
      this.#storage.write(encodeHeader(this.#layout), 0);
      this.#storage.flush();
      this.#storage.resize(fileSize);
      this.#storage.allocate(mapOffset, this.map.bytes.length);
      this.#storage.allocate(recentOffset, this.map.bytes.length);
      this.#storage.flush();
      this.#storage.write(encodeNumber(state.made), field.state);
      this.#storage.flush();
    });
  }

  #load({ version, boot }: Header): void {
    this.#storage.read(this.map.bytes, this.#layout.mapOffset);
    if (version < VERSION) this.#convert();
    this.#compareRecent(isEqual(boot, this.#boot) && !isEqual(boot, NO_BOOT));
    if (!isEqual(boot, CLOSED)) this.map.distrust();
  }

  /** Converts a file of version 1. It stays of version 1 until the last write, which changes one byte. */
  #convert(): void {
    const { recentOffset, mapOffset, fileSize } = this.#layout;
    this.#needingRoom(recentOffset, () => {
      this.#storage.resize(fileSize);
      this.#storage.allocate(recentOffset, this.map.bytes.length);
      // Allocates the parts that were sparse.
      this.#storage.write(this.map.bytes, mapOffset);
      const header = encodeHeader(this.#layout);
      header.set(NO_BOOT, field.boot);
      header.set(encodeNumber(state.made), field.state);
      this.#storage.write(header.subarray(field.recentOffset, field.end), field.recentOffset);
      this.#storage.flush();
      this.#storage.write(encodeNumber(VERSION), field.version);
      this.#storage.flush();
    });
  }

  /** Undoes work that fails half way. */
  #needingRoom(lengthBefore: number, work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#storage.resize(lengthBefore);
      const { path } = this.#storage;
      throw new UserError(
        `making ${path} an overlay of ${this.#layout.size} bytes failed (${messageOf(error)}): choose a file system with room for it`,
        { cause: error },
      );
    }
  }

  /** Merges the recent map into the map if it counts, then makes it equal to the map. */
  #compareRecent(counts: boolean): void {
    const piece = new Uint8Array(new ArrayBuffer(Math.min(PIECE_BYTES, this.map.bytes.length)));
    for (let at = 0; at < this.map.bytes.length; at += piece.length) {
      const stored = piece.subarray(0, Math.min(piece.length, this.map.bytes.length - at));
      this.#storage.read(stored, this.#layout.recentOffset + at);
      const ours = this.map.bytes.subarray(at, at + stored.length);
      if (isEqual(stored, ours)) continue;
      if (counts) this.map.merge(stored, at);
      this.#writeRecent(ours, at);
    }
  }

  /**
   * After a failed flush, data may be gone although the system counts it as written. Nobody can tell which blocks are
   * intact, and no later flush may claim that they are.
   */
  #makeDurable(): void {
    try {
      this.#storage.flush();
    } catch (error) {
      this.#hasFailed = true;
      throw new ErrnoError(
        errnoOf(error),
        `${messageOf(error)}${this.#distrustRecent()}: what was written since the last flush may be lost, and changes are refused; check the disk, then attach the device again`,
        { cause: error },
      );
    }
  }

  /** The next process must not trust the recent map either. Returns what else went wrong. */
  #distrustRecent(): string {
    try {
      this.#storage.write(NO_BOOT, field.boot);
      return "";
    } catch (error) {
      return `, ${messageOf(error)}`;
    }
  }

  #mustBeSound(): void {
    if (this.#hasFailed)
      throw new RepeatedError("EIO", `a flush of overlay ${this.#storage.path} failed: changes are refused`);
  }
}

function isEqual(one: Uint8Array, other: Uint8Array): boolean {
  return Buffer.compare(one, other) === 0;
}
