/**
 * Bytes on their way out. Headers and short payloads are put together in blocks, long payloads go from where they
 * lie, and all is written in order, as much as the socket takes at a time.
 */

/** Payloads up to this length are copied: a call costs more. */
const COPY_MAX = 16 * 1024;
const BLOCK_BYTES = 256 * 1024;

/** What {@link Outbox.flush} came to: all written, some left, or nobody there to take it. */
export type FlushResult = "empty" | "waiting" | "closed";

interface Piece {
  readonly bytes: Uint8Array;
  /** Called when the bytes have been written, or never will be. */
  readonly release: (() => void) | undefined;
}

/** Blocks that nobody uses, and how many are kept: a connection that says nothing has none. */
const SPARE_BLOCKS_MAX = 16;
const spareBlocks: Block[] = [];

class Block {
  readonly bytes = new Uint8Array(new ArrayBuffer(BLOCK_BYTES));
  readonly view = new DataView(this.bytes.buffer);
}

const NO_VIEW = new DataView(new ArrayBuffer(0));

export class Outbox {
  /** Bytes that have not been written. */
  pendingBytes = 0;
  /** The place that {@link reserve} made room at. */
  view = NO_VIEW;
  at = 0;

  readonly #write: (bytes: Uint8Array) => number;
  /** Pieces before the current block, in order. */
  readonly #pieces: Piece[] = [];
  #block: Block | undefined;
  /** The part of the current block that is not in a piece: from `#start` to `#end`. */
  #start = 0;
  #end = 0;

  /** @param write takes some of the bytes and says how many; less than 0 when the stream is closed. */
  constructor(write: (bytes: Uint8Array) => number) {
    this.#write = write;
  }

  /** Makes room for `length` bytes, a few hundred KiB at most, which the caller writes to `view` from `at` on. */
  reserve(length: number): void {
    if (this.#end + length > BLOCK_BYTES) this.#nextBlock();
    this.#block ??= spareBlocks.pop() ?? new Block();
    this.view = this.#block.view;
    this.at = this.#end;
    this.#end += length;
    this.pendingBytes += length;
  }

  /** Appends bytes. They stay as they are until `release` is called, which may be at once. */
  append(bytes: Uint8Array, release: (() => void) | undefined): void {
    if (bytes.length <= COPY_MAX) {
      this.reserve(bytes.length);
      this.#block?.bytes.set(bytes, this.at);
      release?.();
      return;
    }
    this.#closePart();
    this.#pieces.push({ bytes, release });
    this.pendingBytes += bytes.length;
  }

  /** Writes what the socket takes. */
  flush(): FlushResult {
    while (this.#pieces.length > 0) {
      const piece = this.#pieces[0];
      if (piece === undefined) break;
      const written = this.#write(piece.bytes);
      if (written < 0) return this.#close();
      this.pendingBytes -= written;
      if (written < piece.bytes.length) {
        this.#pieces[0] = { ...piece, bytes: piece.bytes.subarray(written) };
        return "waiting";
      }
      this.#pieces.shift();
      piece.release?.();
    }
    return this.#flushBlock();
  }

  /** Lets go of everything. */
  discard(): void {
    for (const piece of this.#pieces.splice(0)) piece.release?.();
    this.#block = undefined;
    this.#start = 0;
    this.#end = 0;
    this.pendingBytes = 0;
  }

  #flushBlock(): FlushResult {
    const block = this.#block;
    if (block === undefined) return "empty";
    if (this.#end > this.#start) {
      const written = this.#write(block.bytes.subarray(this.#start, this.#end));
      if (written < 0) return this.#close();
      this.pendingBytes -= written;
      this.#start += written;
      if (this.#start < this.#end) return "waiting";
    }
    this.#block = undefined;
    this.#start = 0;
    this.#end = 0;
    if (spareBlocks.length < SPARE_BLOCKS_MAX) spareBlocks.push(block);
    return "empty";
  }

  #close(): FlushResult {
    this.discard();
    return "closed";
  }

  #nextBlock(): void {
    this.#closePart();
    this.#block = undefined;
    this.#start = 0;
    this.#end = 0;
  }

  #closePart(): void {
    const block = this.#block;
    if (block === undefined || this.#end === this.#start) return;
    this.#pieces.push({ bytes: block.bytes.subarray(this.#start, this.#end), release: undefined });
    this.#start = this.#end;
  }
}
