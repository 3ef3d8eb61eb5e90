/** A buffer lent to a device that shows whether the device does more with it than the request allows. */
import { DATA, GARBAGE } from "./noise.ts";

/** Bytes before and after the buffer, which the device must not touch. */
const GUARD = 512;
/** A target is checked for unfilled bytes at places this many bytes apart, and at its end. */
const SAMPLE_STEP = 512;
const SAMPLE = 16;

export class LentBuffer {
  /** What the device gets. */
  readonly bytes: Uint8Array;
  readonly #whole: Uint8Array;
  /** The offset of this buffer's garbage in the noise. */
  #from: number;

  private constructor(length: number, from: number) {
    this.#from = from;
    this.#whole = new Uint8Array(new ArrayBuffer(GUARD + length + GUARD));
    GARBAGE.fill(this.#whole, from);
    this.bytes = this.#whole.subarray(GUARD, GUARD + length);
  }

  /** Full of garbage. */
  static target(length: number, from: number): LentBuffer {
    return new LentBuffer(length, from);
  }

  /** Full of data: byte 0 is byte `data` of its noise. */
  static source(length: number, from: number, data: number): LentBuffer {
    const buffer = new LentBuffer(length, from);
    DATA.fill(buffer.bytes, data);
    return buffer;
  }

  get length(): number {
    return this.#whole.length;
  }

  /** What the device has done to the memory around the buffer; undefined if nothing. */
  trespass(): string | undefined {
    const before = this.#whole.subarray(0, GUARD);
    if (GARBAGE.mismatch(before, this.#from) >= 0) return "changed bytes before its buffer";
    const behind = this.#whole.subarray(GUARD + this.bytes.length);
    if (GARBAGE.mismatch(behind, this.#from + GUARD + this.bytes.length) >= 0) {
      return "changed bytes behind its buffer";
    }
    return undefined;
  }

  /** Where the device has left the buffer unfilled; undefined if nowhere. */
  unfilled(): string | undefined {
    const last = this.bytes.length - SAMPLE;
    for (let at = 0; at < this.bytes.length; at += SAMPLE_STEP) if (this.#isGarbage(at)) return leftAt(at);
    return this.#isGarbage(last) ? leftAt(last) : undefined;
  }

  /** Takes the buffer back: from now on the device must neither touch it nor rely on its contents. */
  takeBack(from: number): void {
    this.#from = from;
    GARBAGE.fill(this.#whole, from);
  }

  /** Whether the device touched it after that. */
  isTouched(): boolean {
    return GARBAGE.mismatch(this.#whole, this.#from) >= 0;
  }

  #isGarbage(at: number): boolean {
    return GARBAGE.mismatch(this.bytes.subarray(at, at + SAMPLE), this.#from + GUARD + at) < 0;
  }
}

function leftAt(index: number): string {
  return `left its target as it was, from byte ${index} of it on`;
}
