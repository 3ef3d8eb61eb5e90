/** Devices with one mistake each, of the kinds that people make. */
import { SlowStore, turns } from "./async-devices.ts";
import { Shadow } from "./shadow.ts";

/** A long write lacks its last byte. */
export class OffByOne extends Shadow {
  override write(source: Uint8Array, offset: number): void {
    void super.write(source.length > 4096 ? source.subarray(0, -1) : source, offset);
  }
}

/** Writes a block too far on if the range is not aligned to 4096. */
export class WrongOffset extends Shadow {
  override write(source: Uint8Array, offset: number): void {
    const wrong = offset % 4096 === 3584 && offset + source.length + 512 <= this.size ? offset + 512 : offset;
    void super.write(source, wrong);
  }
}

/** Keeps a list of trimmed ranges, and forgets to remove those that are written again. */
export class TrimmedForEver extends Shadow {
  readonly #trimmed = new Set<number>();

  override trim(offset: number, length: number): void {
    for (let at = offset; at < offset + length; at += 512) this.#trimmed.add(at);
  }

  override read(target: Uint8Array, offset: number): void {
    void super.read(target, offset);
    for (let at = 0; at < target.length; at += 512) {
      if (this.#trimmed.has(offset + at)) target.fill(0, at, at + 512);
    }
  }
}

/** Does nothing when told to write zeroes. */
export class ForgetsZeroes extends Shadow {
  override writeZeroes(): void {
    return undefined;
  }
}

/** Zeroes all of each 4096 bytes that the range touches. */
export class ZeroesTooMuch extends Shadow {
  override writeZeroes(offset: number, length: number): void {
    const end = Math.min(this.size, Math.ceil((offset + length) / 4096) * 4096);
    void super.writeZeroes(offset - (offset % 4096), end - (offset - (offset % 4096)));
  }
}

/** Keeps the buffer of a short write instead of copying its bytes. */
export class KeepsBuffer extends Shadow {
  readonly #kept = new Map<number, Uint8Array>();

  override write(source: Uint8Array, offset: number): void {
    void super.write(source, offset);
    for (const at of this.#kept.keys()) {
      if (at < offset + source.length && at + 4096 > offset) this.#kept.delete(at);
    }
    if (source.length <= 4096) this.#kept.set(offset, source);
  }

  override read(target: Uint8Array, offset: number): void {
    void super.read(target, offset);
    const kept = this.#kept.get(offset);
    if (kept !== undefined && kept.length <= target.length) target.set(kept);
  }
}

/** Refuses a write of data that it holds already. But a killed server may not have answered the first write. */
export class WritesOnce extends Shadow {
  override write(source: Uint8Array, offset: number): void {
    const before = new Uint8Array(source.length);
    void super.read(before, offset);
    if (Buffer.compare(before, source) === 0) throw new Error("written twice");
    void super.write(source, offset);
  }
}

/** Does not fill the end of a target. */
export class FillsShort extends Shadow {
  override read(target: Uint8Array, offset: number): void {
    void super.read(target.length > 1024 ? target.subarray(0, -512) : target, offset);
  }
}

/** Encrypts in place, and so changes the lent buffer. */
export class ChangesSource extends Shadow {
  override write(source: Uint8Array, offset: number): void {
    void super.write(source, offset);
    source.reverse();
  }
}

/** Writes beyond the target, through the memory that contains it. */
export class WritesBehind extends Shadow {
  override read(target: Uint8Array, offset: number): void {
    void super.read(target, offset);
    new Uint8Array(target.buffer, target.byteOffset, target.length + 1)[target.length] = 0;
  }
}

/** Fills its target again after the read is done. */
export class WritesLate extends Shadow {
  override async read(target: Uint8Array, offset: number): Promise<void> {
    await super.read(target, offset);
    void turns(2).then(() => target.fill(0));
  }
}

/** Reads, changes and writes 4096 bytes at a time: of two changes within the same 4096 bytes, one is lost. */
export class LostUpdate extends SlowStore {
  override async write(source: Uint8Array, offset: number): Promise<void> {
    const start = offset - (offset % 4096);
    const end = Math.min(this.size, Math.ceil((offset + source.length) / 4096) * 4096);
    const around = this.bytes.slice(start, end);
    around.set(source, offset - start);
    await turns(8);
    this.bytes.set(around, start);
  }
}

/** Reports a write as done before it is. */
export class DoneTooEarly extends SlowStore {
  override async write(source: Uint8Array, offset: number): Promise<void> {
    const copy = source.slice();
    void turns(8).then(() => this.bytes.set(copy, offset));
  }
}

/** The third block is broken. */
export class Throws extends Shadow {
  override read(target: Uint8Array, offset: number): void {
    if (offset <= 1024 && offset + target.length > 1024) throw new Error("bad sector");
    void super.read(target, offset);
  }
}

/** Never answers a flush. */
export class Hangs extends SlowStore {
  override flush(): Promise<void> {
    return new Promise(() => undefined);
  }
}

/** Reports holes where its data is. */
export class WrongExtents extends Shadow {
  extents(_: number, length: number): { length: number; hole: boolean; zero: boolean }[] {
    return [{ length, hole: true, zero: true }];
  }
}
