/** Buffers that devices have returned, watched for a while in case a device still writes to one. */
import type { LentBuffer } from "./lent-buffer.ts";

const COUNT_MAX = 16;
/** Longer buffers are not watched, because checking them takes too long. */
const LENGTH_MAX = 256 * 1024;

export class ReturnedBuffers {
  readonly #watched: { readonly buffer: LentBuffer; readonly by: string }[] = [];

  /** Adds a buffer that was taken back. Returns what is wrong with the one that it displaces, if anything. */
  add(buffer: LentBuffer, by: string): string | undefined {
    if (buffer.length > LENGTH_MAX) return undefined;
    this.#watched.push({ buffer, by });
    return this.#watched.length > COUNT_MAX ? this.#inspectOldest() : undefined;
  }

  /** Checks all of them and forgets them. */
  inspect(): string | undefined {
    let wrong: string | undefined;
    while (this.#watched.length > 0) wrong = this.#inspectOldest() ?? wrong;
    return wrong;
  }

  #inspectOldest(): string | undefined {
    const oldest = this.#watched.shift();
    return oldest?.buffer.isTouched() === true
      ? `${oldest.by}: wrote into its buffer after it had given it back`
      : undefined;
  }
}
