/** Reads the data of an option: numbers and strings. Every length is untrusted. */
import { NBD_MAX_STRING_SIZE } from "../wire/numbers.ts";

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The text that the bytes are in UTF-8; undefined when they are none. */
export function decodeText(bytes: Uint8Array): string | undefined {
  try {
    return decoder.decode(bytes);
  } catch {
    return undefined;
  }
}

class Malformed extends Error {}

export class OptionData {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  private constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** What `read` makes of the data; undefined if that is too short, too long, or has an invalid length. */
  static parse<T>(bytes: Uint8Array, read: (data: OptionData) => T): T | undefined {
    const data = new OptionData(bytes);
    try {
      const result = read(data);
      return data.#at === bytes.length ? result : undefined;
    } catch (error) {
      if (error instanceof Malformed) return undefined;
      throw error;
    }
  }

  uint16(): number {
    return this.#view.getUint16(this.#take(2));
  }

  uint32(): number {
    return this.#view.getUint32(this.#take(4));
  }

  /** A length and as many bytes of UTF-8. */
  string(): string {
    const length = this.uint32();
    if (length > NBD_MAX_STRING_SIZE) throw new Malformed();
    const at = this.#take(length);
    const text = decodeText(this.#bytes.subarray(at, at + length));
    if (text === undefined) throw new Malformed();
    return text;
  }

  /** A count and as many strings. */
  strings(): string[] {
    const strings: string[] = [];
    // Each takes at least four bytes: a count beyond that fails long before it is reached.
    for (let left = this.uint32(); left > 0; left -= 1) strings.push(this.string());
    return strings;
  }

  #take(length: number): number {
    const at = this.#at;
    if (length > this.#bytes.length - at) throw new Malformed();
    this.#at += length;
    return at;
  }
}
