/** Memory for the data of a queue: a buffer for each tag, and as many for tags whose buffer a device keeps. */
import { Memory } from "../../libc/memory.ts";
import { ViewCache } from "../../serving/view-cache.ts";

/** Where buffers begin: what O_DIRECT asks of an address. */
const ALIGNMENT = 4096;

export class TagBuffers {
  readonly #arena: Memory;
  readonly #views: ViewCache;
  /** Bytes from one buffer to the next; 0 where all are the same one. */
  readonly #stride: number;
  readonly #spare: number[];

  /**
   * @param bytes of the longest request.
   * @param shared one buffer is enough, for data that nobody looks at.
   */
  constructor(tags: number, bytes: number, shared: boolean) {
    this.#stride = shared ? 0 : bytes;
    this.#arena = new Memory(shared ? bytes : 2 * tags * bytes);
    this.#views = new ViewCache(this.#arena.bytes().buffer, 0, ALIGNMENT);
    this.#spare = Array.from({ length: tags }, (_, index) => tags + index);
  }

  /** Of a buffer by its number; that of a tag is the tag's own to begin with. */
  address(buffer: number): number {
    return this.#arena.address + buffer * this.#stride;
  }

  view(buffer: number, length: number): Uint8Array {
    return this.#views.view(buffer * this.#stride, length);
  }

  /** A buffer that no tag has; undefined when the devices keep them all. */
  takeSpare(): number | undefined {
    return this.#spare.pop();
  }

  giveBack(buffer: number): void {
    this.#spare.push(buffer);
  }

  close(): void {
    this.#arena.close();
  }
}
