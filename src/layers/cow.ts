/** A layer that keeps changes to itself: it only reads the device below. */
import type { BlockDevice, Extent, SharedDevice, WriteZeroesOptions } from "../device.ts";
import { ErrnoError } from "../errors.ts";
import { adopt, adoptDone } from "../values/promise.ts";
import { allDone, closeOnce, type Done, identityBehind, shapeOf, whenDone } from "./around.ts";
import { BlockBuffers } from "./block-buffers.ts";
import { OVERLAY_BLOCK } from "./block-map.ts";
import { fileOption } from "./files.ts";
import { fingerprint } from "./fingerprint.ts";
import type { Layer } from "./layer.ts";
import type { LayerContext, NamedLayer } from "./options.ts";
import { type MemfdState, MemoryOverlay, type Overlay } from "./overlay.ts";
import { FileOverlay } from "./overlay-file.ts";
import { LateOverlay } from "./overlay-late.ts";
import { makeMemfdOverlay, openMemfdOverlay } from "./overlay-memfd.ts";

export interface CowOptions {
  /**
   * The path of a sparse file that keeps the changes. An existing one is continued; it must have been made over a
   * device with the same contents. Acknowledged changes survive the death of the process, flushed ones that of the
   * system. Default: memory, which is lost at close.
   */
  readonly file?: string | undefined;
}

/**
 * Copy on write: makes any device writable, even a read-only one, and never changes it.
 *
 * @param context for a device that is handed over: another process may use the file until the device is prepared.
 * @throws UserError, once applied to a device, if the file is no overlay of it.
 */
export function cowLayer(options: CowOptions = {}, context: HandoverContext = {}): Layer {
  return (device) => copyOnWrite(device, overlayOf(device, options, context));
}

type HandoverContext = Pick<LayerContext, "takesOver" | "files">;

function overlayOf({ size }: BlockDevice, { file }: CowOptions, context: HandoverContext): Overlay {
  const files = context.files?.();
  if (file === undefined)
    return files === undefined ? new MemoryOverlay(size) : makeMemfdOverlay(size, files);
  return context.takesOver?.() === true ? new LateOverlay(file, size) : FileOverlay.open(file, size);
}

/** Closing the device closes the overlay as well. */
export function copyOnWrite(device: BlockDevice, overlay: Overlay): BlockDevice {
  const cow = new CopyOnWrite(device, overlay);
  const { fua: _, ...shape } = shapeOf(device);
  return {
    ...shape,
    ...(overlay.checkBase !== undefined && { prepare: () => cow.prepare() }),
    // Without an identity: changes in memory are lost with the process, whatever the device below.
    ...(overlay.identity !== undefined && identityBehind(`cow:${overlay.identity}`, device)),
    ...sharedOf(device, overlay),
    read: (target, offset) => cow.read(target, offset),
    write: (source, offset) => cow.write(source, offset),
    ...(overlay.flush !== undefined && { flush: () => cow.flush() }),
    trim: (offset, length) => cow.trim(offset, length),
    writeZeroes: (offset, length, how) => cow.writeZeroes(offset, length, how),
    ...(device.extents !== undefined && { extents: (offset, length) => cow.extents(offset, length) }),
    close: closeOnce(device, () => cow.close()),
  };
}

/** What another thread needs to serve the same device, and the same overlay. */
interface SharedState {
  readonly base: SharedDevice;
  readonly overlay: MemfdState;
}

function sharedOf({ shared: base }: BlockDevice, { state }: Overlay): Pick<BlockDevice, "shared"> {
  if (base === undefined || state === undefined) return {};
  // Two threads that copy one block, each for a write to a part of it, would lose one of the writes.
  return {
    shared: { kind: "cow", state: { base, overlay: state } satisfies SharedState, byOneThread: true },
  };
}

function isSharedState(state: unknown): state is SharedState {
  return typeof state === "object" && state !== null && "base" in state && "overlay" in state;
}

/**
 * Opens a device on another thread from its `shared.state`. Close it before the original.
 * @param open opens the device below.
 */
export function openShared(state: unknown, open: (base: SharedDevice) => BlockDevice): BlockDevice {
  if (!isSharedState(state)) throw new TypeError("not the state of a copy-on-write layer");
  return copyOnWrite(open(state.base), openMemfdOverlay(state.overlay));
}

/** Bytes from `start` to `end` - 1 that all come from the overlay, or all from the device below. */
interface Run {
  readonly start: number;
  readonly end: number;
  readonly own: boolean;
}

class CopyOnWrite {
  /** Blocks being copied from an asynchronous device: two writes to parts of one block share the copy. */
  readonly #copying = new Map<number, Promise<void>>();
  readonly #buffers = new BlockBuffers();
  #closed = false;

  constructor(
    readonly base: BlockDevice,
    readonly overlay: Overlay,
  ) {}

  /** @throws UserError if the overlay belongs to another device. */
  async prepare(): Promise<void> {
    await adopt(this.base.prepare?.());
    this.overlay.open?.();
    if (this.overlay.checkBase !== undefined)
      this.overlay.checkBase(await fingerprint(this.base), this.base.identity);
  }

  close(): void {
    this.#closed = true;
    this.#buffers.close();
    this.overlay.close();
  }

  flush(): void {
    this.#mustBeOpen();
    this.overlay.flush?.();
  }

  read(target: Uint8Array, offset: number): Done {
    this.#mustBeOpen();
    const pending: Promise<void>[] = [];
    try {
      for (const run of this.#runs(offset, target.length)) {
        const part = target.subarray(run.start - offset, run.end - offset);
        const done = adoptDone(
          run.own ? this.overlay.read(part, run.start) : this.base.read(part, run.start),
        );
        if (done !== undefined) pending.push(done);
      }
    } catch (error) {
      // The device below may still write to the target until the other parts are done.
      if (pending.length === 0) throw error;
      pending.push(Promise.reject(error));
    }
    return pending.length === 0 ? undefined : allDone(pending);
  }

  write(source: Uint8Array, offset: number): Done {
    return whenDone(this.#copyEdges(offset, source.length), () => {
      this.#mustBeOpen();
      this.overlay.write(source, offset);
      this.#own(offset, source.length);
    });
  }

  writeZeroes(offset: number, length: number, { mayTrim }: WriteZeroesOptions): Done {
    return whenDone(this.#copyEdges(offset, length), () => {
      this.#mustBeOpen();
      if (mayTrim) this.overlay.discard(offset, length);
      else this.overlay.zero(offset, length);
      this.#own(offset, length);
    });
  }

  /** Whole blocks read as zeroes afterwards; partial blocks stay as they are. */
  trim(offset: number, length: number): void {
    this.#mustBeOpen();
    const start = Math.ceil(offset / OVERLAY_BLOCK) * OVERLAY_BLOCK;
    const reached = offset + length;
    const end = reached === this.base.size ? reached : reached - (reached % OVERLAY_BLOCK);
    if (start >= end) return;
    this.overlay.discard(start, end - start);
    this.#own(start, end - start);
  }

  /** The extents of the first run; the caller asks again for the rest. */
  extents(offset: number, length: number): readonly Extent[] | Promise<readonly Extent[]> {
    this.#mustBeOpen();
    const run = this.#runAt(offset, offset + length);
    const wanted = run.end - run.start;
    const { extents } = this.base;
    if (run.own || extents === undefined) return [{ length: wanted, hole: false, zero: false }];
    const found = adopt(extents.call(this.base, offset, wanted));
    return found instanceof Promise ? found.then((all) => cutOff(all, wanted)) : cutOff(found, wanted);
  }

  /** Copies the blocks at both ends of a range, of which a change leaves a part. */
  #copyEdges(offset: number, length: number): Done {
    const end = offset + length;
    const first = Math.floor(offset / OVERLAY_BLOCK);
    const last = Math.floor((end - 1) / OVERLAY_BLOCK);
    const lastIsPart = end % OVERLAY_BLOCK !== 0 && end !== this.base.size;
    const firstIsPart = offset % OVERLAY_BLOCK !== 0 || (first === last && lastIsPart);
    const done = firstIsPart ? this.#copyBlock(first) : undefined;
    if (!lastIsPart || last === first) return done;
    return whenDone(done, () => this.#copyBlock(last));
  }

  #copyBlock(block: number): Done {
    this.#mustBeOpen();
    if (this.overlay.map.has(block)) return undefined;
    const copying = this.#copying.get(block);
    if (copying !== undefined) return copying;
    const buffer = this.#buffers.take();
    const done = this.#copyThrough(buffer, block);
    if (done === undefined) return this.#buffers.giveBack(buffer);
    const tracked = done.finally(() => {
      this.#copying.delete(block);
      this.#buffers.giveBack(buffer);
    });
    this.#copying.set(block, tracked);
    return tracked;
  }

  #copyThrough(buffer: Uint8Array, block: number): Done {
    const start = block * OVERLAY_BLOCK;
    const bytes = buffer.subarray(0, Math.min(OVERLAY_BLOCK, this.base.size - start));
    try {
      return whenDone(this.base.read(bytes, start), () => {
        this.#mustBeOpen();
        this.overlay.write(bytes, start);
        this.overlay.own(block, block + 1);
      });
    } catch (error) {
      this.#buffers.giveBack(buffer);
      throw error;
    }
  }

  /** An abandoned request may continue late, after a layer above or the device below has held it back. */
  #mustBeOpen(): void {
    if (this.#closed) throw new ErrnoError("EIO", "the overlay is closed");
  }

  #own(offset: number, length: number): void {
    this.overlay.own(Math.floor(offset / OVERLAY_BLOCK), Math.ceil((offset + length) / OVERLAY_BLOCK));
  }

  *#runs(offset: number, length: number): Generator<Run> {
    const end = offset + length;
    for (let start = offset; start < end;) {
      const run = this.#runAt(start, end);
      yield run;
      start = run.end;
    }
  }

  /** The run that begins at `start`, cut off at `end`. */
  #runAt(start: number, end: number): Run {
    const { map } = this.overlay;
    const block = Math.floor(start / OVERLAY_BLOCK);
    const endBlock = map.runEnd(block, Math.ceil(end / OVERLAY_BLOCK));
    return { start, end: Math.min(end, endBlock * OVERLAY_BLOCK), own: map.has(block) };
  }
}

function cutOff(extents: readonly Extent[], length: number): readonly Extent[] {
  let left = length;
  const cut: Extent[] = [];
  for (const extent of extents) {
    if (left === 0) break;
    cut.push({ ...extent, length: Math.min(left, extent.length) });
    left -= Math.min(left, extent.length);
  }
  return cut;
}

const OPTIONS = {
  file: fileOption("Keep them in FILE, and continue it if it exists (default memory)"),
};

export const cowNamed: NamedLayer = {
  name: "cow",
  summary: "Keep changes apart and the device below as it is",
  options: OPTIONS,
  sparesDevice: true,
  hasFile: (given) => given(OPTIONS.file) !== undefined,
  make: (given, context) => cowLayer({ file: given(OPTIONS.file) }, context),
};
