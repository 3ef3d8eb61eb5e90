/** A file in memory that remembers each step, so that a crash can happen between any two steps or during one. */
import { ErrnoError } from "../../src/errors.ts";
import type { OverlayStorage } from "../../src/layers/overlay-storage.ts";
import type { Random } from "./random.ts";

export const SECTOR = 512;
const PAGE = 4096;

/** A sparse file at one moment. It never changes. */
export class Image {
  constructor(
    readonly length = 0,
    readonly pages: ReadonlyMap<number, Uint8Array> = new Map(),
  ) {}

  /** Whole pages of zeroes are holes. */
  static of(bytes: Uint8Array): Image {
    const pages = new Map<number, Uint8Array>();
    for (let at = 0; at < bytes.length; at += PAGE) {
      const page = bytes.slice(at, at + PAGE);
      if (page.some((byte) => byte !== 0)) pages.set(at / PAGE, page);
    }
    return new Image(bytes.length, pages);
  }

  get bytes(): Uint8Array {
    const bytes = new Uint8Array(this.length);
    this.read(bytes, 0);
    return bytes;
  }

  read(target: Uint8Array, offset: number): void {
    forPages(offset, target.length, (page, from, to, done) => {
      const part = target.subarray(done, done + to - from);
      const stored = this.pages.get(page);
      if (stored === undefined) part.fill(0);
      else part.set(stored.subarray(from, to));
    });
  }

  written(source: Uint8Array, offset: number): Image {
    const pages = new Map(this.pages);
    forPages(offset, source.length, (page, from, to, done) => {
      const changed = new Uint8Array(PAGE);
      changed.set(pages.get(page) ?? []);
      changed.set(source.subarray(done, done + to - from), from);
      pages.set(page, changed);
    });
    return new Image(Math.max(this.length, offset + source.length), pages);
  }

  resized(length: number): Image {
    return new Image(length, new Map([...this.pages].filter(([page]) => page * PAGE < length)));
  }
}

type Step =
  | { readonly kind: "write"; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: "resize"; readonly length: number }
  | { readonly kind: "flush" };

export class RecordedStorage implements OverlayStorage {
  readonly identity = "0:0/0";
  readonly path = "overlay";
  readonly steps: Step[] = [];
  /** The error with which the next flush fails. */
  flushFailure: ErrnoError | undefined;
  flushes = 0;
  /** The file before each step, and now. */
  readonly #images: Image[];
  readonly #allocated: Set<number>;

  /** @param pagesMax the capacity of the disk. */
  constructor(
    image = new Image(),
    readonly pagesMax = Infinity,
  ) {
    this.#images = [image];
    this.#allocated = new Set(image.pages.keys());
  }

  get image(): Image {
    return this.afterKill(this.steps.length);
  }

  length(): number {
    return this.image.length;
  }

  resize(length: number): void {
    this.#do({ kind: "resize", length });
    for (const page of this.#allocated) if (page * PAGE >= length) this.#allocated.delete(page);
  }

  allocate(offset: number, length: number): void {
    forPages(offset, length, (page) => {
      const isFull = this.#allocated.size >= this.pagesMax && !this.#allocated.has(page);
      if (isFull) throw new ErrnoError("ENOSPC", "full");
      this.#allocated.add(page);
    });
  }

  read(target: Uint8Array, offset: number): void {
    if (offset + target.length > this.length()) throw new ErrnoError("EIO", "beyond the end");
    this.image.read(target, offset);
  }

  write(source: Uint8Array, offset: number): void {
    this.allocate(offset, source.length);
    this.#do({ kind: "write", offset, bytes: source.slice() });
  }

  discard(offset: number, length: number): void {
    this.zero(offset, length);
  }

  zero(offset: number, length: number): void {
    this.write(new Uint8Array(length), offset);
  }

  flush(): void {
    const failure = this.flushFailure;
    this.flushFailure = undefined;
    if (failure !== undefined) throw failure;
    this.flushes += 1;
    this.#do({ kind: "flush" });
  }

  close(): void {}

  /** The file after a process was killed that had done `steps` steps, and `part` bytes of the next. */
  afterKill(steps: number, part = 0): Image {
    const image = this.#images[steps] ?? new Image();
    const next = this.steps[steps];
    return part > 0 && next?.kind === "write"
      ? image.written(next.bytes.subarray(0, part), next.offset)
      : image;
  }

  /** The disk after a power failure: some of the unflushed sectors remain, some do not. */
  afterPowerFailure(steps: number, random: Random): Image {
    const flushed = this.steps.slice(0, steps).findLastIndex(({ kind }) => kind === "flush") + 1;
    let image = this.afterKill(flushed);
    for (const step of this.steps.slice(flushed, steps)) {
      if (step.kind === "resize" && random.oneIn(2)) image = image.resized(step.length);
      if (step.kind !== "write") continue;
      for (let at = 0; at < step.bytes.length; at += SECTOR) {
        const isThere = random.oneIn(2) && (step.offset === 0 || step.offset + at < image.length);
        if (isThere) image = image.written(step.bytes.subarray(at, at + SECTOR), step.offset + at);
      }
    }
    return image;
  }

  #do(step: Step): void {
    let { image } = this;
    if (step.kind === "write") image = image.written(step.bytes, step.offset);
    if (step.kind === "resize") image = image.resized(step.length);
    this.steps.push(step);
    this.#images.push(image);
  }
}

/** Calls `visit` for each page of the range, with the part of the page and how much of the range comes before it. */
function forPages(
  offset: number,
  length: number,
  visit: (page: number, from: number, to: number, done: number) => void,
): void {
  for (let done = 0; done < length;) {
    const page = Math.floor((offset + done) / PAGE);
    const from = offset + done - page * PAGE;
    const to = Math.min(PAGE, from + length - done);
    visit(page, from, to, done);
    done += to - from;
  }
}
