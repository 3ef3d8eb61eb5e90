/** Memory for the data of a queue: a buffer for each tag, and spare ones for tags whose buffer a device keeps. */
import { unwrap } from "../../libc/errno.ts";
import { Memory } from "../../libc/memory.ts";
import { ViewCache } from "../../serving/view-cache.ts";
import { errno } from "../../uapi/errno.ts";

/** The alignment of buffers: what O_DIRECT requires of an address. */
const ALIGNMENT = 4096;

/** Consecutive buffers of one length. */
class Arena {
  readonly #memory: Memory;
  readonly #views: ViewCache;

  constructor(
    count: number,
    readonly stride: number,
  ) {
    this.#memory = new Memory(count * stride);
    this.#views = new ViewCache(this.#memory.bytes().buffer, 0, ALIGNMENT);
  }

  address(index: number): number {
    return this.#memory.address + index * this.stride;
  }

  view(index: number, length: number): Uint8Array {
    return this.#views.view(index * this.stride, length);
  }

  populate(): void {
    const result = this.#memory.populate();
    // Before Linux 5.14 this is unsupported, and the memory is allocated as it is used.
    if (result !== -errno.EINVAL) unwrap(result, "memory for requests");
  }

  close(): void {
    this.#memory.close();
  }
}

export class TagBuffers {
  /** A buffer for refused data, shared by all tags; no device gets it. */
  readonly sink: number;
  readonly #ownCount: number;
  readonly #own: Arena;
  /** One buffer is enough, because nobody looks at the data. */
  readonly #isShared: boolean;
  /** Allocated when the first one is needed: most devices answer. */
  #others: Arena | undefined;
  #made = 0;
  readonly #spare: number[] = [];

  /**
   * @param bytes of the longest request.
   * @param shared one buffer is enough, because nobody looks at the data.
   */
  constructor(tags: number, bytes: number, shared: boolean) {
    this.sink = tags;
    // Pages that are never touched cost nothing.
    this.#ownCount = tags + 1;
    this.#isShared = shared;
    this.#own = new Arena(shared ? 1 : this.#ownCount, bytes);
  }

  /** Allocates the memory of all tags now. @throws ErrnoError if there is not enough. */
  populate(): void {
    this.#own.populate();
  }

  /** The address of a buffer, by its number; a tag's first buffer has the number of the tag. */
  address(buffer: number): number {
    if (this.#isShared) return this.#own.address(0);
    return buffer < this.#ownCount
      ? this.#own.address(buffer)
      : this.#arenaOfOthers().address(buffer - this.#ownCount);
  }

  view(buffer: number, length: number): Uint8Array {
    if (this.#isShared) return this.#own.view(0, length);
    return buffer < this.#ownCount
      ? this.#own.view(buffer, length)
      : this.#arenaOfOthers().view(buffer - this.#ownCount, length);
  }

  /**
   * A buffer that no tag has. There is one for each request that can stay unanswered: up to one less than the tags, and
   * then those of all tags. @throws ErrnoError if there is not enough memory.
   */
  takeSpare(): number {
    const spare = this.#spare.pop();
    if (spare !== undefined) return spare;
    if (!this.#isShared) this.#arenaOfOthers();
    this.#made += 1;
    return this.#ownCount + this.#made - 1;
  }

  giveBack(buffer: number): void {
    this.#spare.push(buffer);
  }

  close(): void {
    this.#own.close();
    this.#others?.close();
  }

  #arenaOfOthers(): Arena {
    this.#others ??= new Arena(2 * this.sink, this.#own.stride);
    return this.#others;
  }
}
