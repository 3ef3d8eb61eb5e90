/**
 * The disk of a device that another process hands over. Opening the disk takes it away from that process, so it is
 * opened only after that process has let go.
 */
import { type BlockDevice, ErrnoError, type Extent } from "tsbuse";
import { type BucketDisk, identityOf } from "./device.ts";
import { findDisk } from "./opening.ts";
import { BLOCK_BYTES, type ObjectStore } from "./parts.ts";
import type { Patience } from "./patience.ts";

interface PatientStore extends ObjectStore {
  readonly patience: Patience;
}

export class LateDisk implements BlockDevice {
  readonly blockSize = BLOCK_BYTES;
  #disk: BucketDisk | undefined;

  /** @param open opens the disk as its writer. */
  private constructor(
    readonly size: number,
    readonly identity: string,
    readonly patience: Patience,
    readonly open: () => Promise<BucketDisk>,
  ) {}

  /**
   * Checks that there is such a disk.
   * @param journal where its journal is; undefined without one.
   * @throws UserError
   */
  static async of(
    store: PatientStore,
    journal: string | undefined,
    open: () => Promise<BucketDisk>,
  ): Promise<LateDisk> {
    const { size, id } = await findDisk(store);
    return new LateDisk(size, identityOf(store, id, journal), store.patience, open);
  }

  /**
   * Tries for as long as the store is unavailable: the previous process has let go, and the node's users have no other.
   */
  async prepare(): Promise<void> {
    this.patience.isEndless = true;
    this.#disk ??= await this.open();
  }

  read(target: Uint8Array, offset: number): void | Promise<void> {
    return this.#opened.read(target, offset);
  }

  write(source: Uint8Array, offset: number): void | Promise<void> {
    return this.#opened.write?.(source, offset);
  }

  flush(): void | Promise<void> {
    return this.#opened.flush?.();
  }

  trim(offset: number, length: number): void | Promise<void> {
    return this.#opened.trim?.(offset, length);
  }

  writeZeroes(offset: number, length: number): void | Promise<void> {
    return this.#opened.writeZeroes?.(offset, length);
  }

  extents(offset: number, length: number): readonly Extent[] {
    return this.#opened.extents(offset, length);
  }

  async close(): Promise<void> {
    await this.#disk?.close();
  }

  /** The disk opened as a writer, so it has all methods. @throws ErrnoError EIO before it is prepared. */
  get #opened(): BucketDisk {
    if (this.#disk?.write === undefined) throw new ErrnoError("EIO", "the disk has not been opened yet");
    return this.#disk;
  }
}
