/** Devices for counting what a request loop allocates: they allocate nothing themselves, but for the last. */
import { Ramdisk } from "../../devices/ramdisk.ts";
import type { BlockDevice } from "../../src/device.ts";
import { Memory } from "../../src/libc/memory.ts";

/** A plain device that does not allocate itself. */
export class Plain implements BlockDevice {
  readonly #memory: Memory;

  constructor(readonly size: number) {
    this.#memory = new Memory(size);
  }

  read(target: Uint8Array, offset: number): void {
    this.#memory.read(target, offset);
  }

  write(source: Uint8Array, offset: number): void {
    this.#memory.write(source, offset);
  }

  flush(): void {
    // Memory has nothing to flush.
  }

  trim(offset: number, length: number): void {
    this.#memory.zero(offset, length);
  }

  close(): void {
    this.#memory.close();
  }
}

export class RamdiskWithFlush extends Ramdisk {
  flush(): void {
    // As above.
  }
}

/** A device that makes an object per read, as a mistake in a request loop would. */
export class Wasteful extends Plain {
  #last: object = {};

  override read(target: Uint8Array, offset: number): void {
    this.#last = { after: Object.keys(this.#last).length, offset };
    super.read(target, offset);
  }
}
