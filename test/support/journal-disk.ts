/** The local disk that a journal lies on: it may lose power, fill up, hang, and tear what was on its way. */
import type { JournalStorage } from "../../devices/bucket/journal-file.ts";
import type { Client } from "./bucket.ts";
import type { Random } from "./random.ts";

const SECTOR_BYTES = 512;
const TURNS_MAX = 4;
/** No machine is that slow. */
const PATIENCE_MS = 2 ** 31 - 1;

interface Write {
  readonly bytes: Uint8Array;
  readonly offset: number;
}

export type Fault = "ENOSPC" | "hang";

export class JournalDisk {
  /** What the page cache has, and what is safe without power. */
  current = new Uint8Array();
  stable = new Uint8Array();
  unsynced: Write[] = [];
  onItsWay: Write | undefined;
  boots = 1;

  /** Its process has been killed: of what it was writing a beginning is there. */
  killed(random: Random): void {
    const { onItsWay } = this;
    this.onItsWay = undefined;
    if (onItsWay === undefined) return;
    const bytes = onItsWay.bytes.subarray(0, random.below(onItsWay.bytes.length + 1));
    this.apply({ ...onItsWay, bytes });
  }

  /** Of what was not synced any sectors are there. */
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

/** A process's hold on it. Operations count as those of its client of the bucket do, and it dies with that. */
export class DiskHandle implements JournalStorage {
  readonly name = "/journal";
  readonly boot: string;
  patienceMs = PATIENCE_MS;
  operations = 0;
  /** The operation of this number and those after it do not succeed. */
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
    // Of what is written meanwhile nothing is promised.
    const begun = this.disk.unsynced.length;
    await this.#step();
    for (const { bytes, offset } of this.disk.unsynced.splice(0, begun)) this.disk.stable.set(bytes, offset);
  }

  async close(): Promise<void> {
    // Nothing to give back.
  }

  /** What is dead, or hangs, never comes to its end. */
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
