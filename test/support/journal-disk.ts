/** The local disk of a journal: it may lose power, fill up, hang, and tear a write in flight. */
import type { JournalStorage } from "../../devices/bucket/journal-file.ts";
import type { Client } from "./bucket.ts";
import type { Random } from "./random.ts";

const SECTOR_BYTES = 512;
const TURNS_MAX = 4;
/** So long that no machine reaches it. */
const PATIENCE_MS = 2 ** 31 - 1;

interface Write {
  readonly bytes: Uint8Array;
  readonly offset: number;
}

export type Fault = "ENOSPC" | "hang";

export class JournalDisk {
  /** The contents with the page cache, and those that survive a power failure. */
  current = new Uint8Array();
  stable = new Uint8Array();
  unsynced: Write[] = [];
  onItsWay: Write | undefined;
  boots = 1;

  /** Its process was killed: only a first part of the write in flight remains. */
  killed(random: Random): void {
    const { onItsWay } = this;
    this.onItsWay = undefined;
    if (onItsWay === undefined) return;
    const bytes = onItsWay.bytes.subarray(0, random.below(onItsWay.bytes.length + 1));
    this.apply({ ...onItsWay, bytes });
  }

  /** The power failed: some unsynced sectors remain, some do not. */
  lostPower(random: Random): void {
    this.killed(random);
    const likelihood = random.pick([0, 0.5, 0.9]);
    for (const { bytes, offset } of this.unsynced)
      for (let at = 0; at < bytes.length; at += SECTOR_BYTES)
        if (random.fraction() < likelihood)
          this.stable.set(bytes.subarray(at, at + SECTOR_BYTES), offset + at);
    this.unsynced = [];
    this.current = this.stable.slice();
    this.boots += 1;
  }

  apply(write: Write): void {
    this.current.set(write.bytes, write.offset);
    this.unsynced.push(write);
  }
}

/** A process's handle for the disk. Operations count for its client of the bucket too, and it dies with that. */
export class DiskHandle implements JournalStorage {
  readonly name = "/journal";
  readonly boot: string;
  patienceMs = PATIENCE_MS;
  operations = 0;
  /** The operation with this number and all later ones fail. */
  fault: { readonly operation: number; readonly kind: Fault } | undefined;

  constructor(
    readonly disk: JournalDisk,
    readonly client: Client,
    readonly random: Random,
  ) {
    this.boot = `boot ${disk.boots}`;
  }

  async reserve(bytes: number): Promise<void> {
    await this.#step();
    if (this.disk.current.length >= bytes) return;
    for (const image of ["current", "stable"] as const) {
      const longer = new Uint8Array(bytes);
      longer.set(this.disk[image]);
      this.disk[image] = longer;
    }
  }

  async read(target: Uint8Array, offset: number): Promise<number> {
    await this.#step();
    const bytes = this.disk.current.subarray(offset, offset + target.length);
    target.set(bytes);
    return bytes.length;
  }

  async write(source: Uint8Array, offset: number): Promise<void> {
    if (!this.client.isDead) this.disk.onItsWay = { bytes: source.slice(), offset };
    await this.#step();
    this.disk.onItsWay = undefined;
    this.disk.apply({ bytes: source.slice(), offset });
  }

  async datasync(): Promise<void> {
    // Makes no promise about later writes.
    const begun = this.disk.unsynced.length;
    await this.#step();
    for (const { bytes, offset } of this.disk.unsynced.splice(0, begun)) this.disk.stable.set(bytes, offset);
  }

  async close(): Promise<void> {
    // Nothing to release.
  }

  /** One operation: it never ends if the client is dead, or the disk hangs. */
  async #step(): Promise<void> {
    this.client.count();
    const { fault } = this;
    this.operations += 1;
    const turns = this.random.below(TURNS_MAX);
    for (let turn = 0; turn < turns; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    if (this.client.isDead) await new Promise<never>(() => undefined);
    if (fault === undefined || this.operations <= fault.operation) return;
    if (fault.kind === "hang") await new Promise<never>(() => undefined);
    throw new Error("no space left on device");
  }
}
