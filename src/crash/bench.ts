/** One state at a time, of one epoch: what is done with a finding, and before all others. */
import type { Finding } from "./checker.ts";
import type { Choice } from "./choices.ts";
import { differenceOf, Disk } from "./disk.ts";
import { type Epoch, epochsOf } from "./epochs.ts";
import { Place, type Subject } from "./place.ts";

export class Bench {
  readonly #disk: Disk;

  private constructor(
    readonly subject: Subject,
    readonly epoch: Epoch,
    readonly place: Place,
    disk: Disk,
  ) {
    this.#disk = disk;
  }

  /** At the first epoch for which `isWanted` says so. @throws UserError */
  static async at(subject: Subject, from: number, isWanted: (epoch: Epoch) => boolean): Promise<Bench> {
    const disk = new Disk(subject.contents, () => undefined);
    for (const epoch of epochsOf(subject.history, from)) {
      disk.store(epoch.stored);
      if (isWanted(epoch)) return new Bench(subject, epoch, await Place.open(subject, BENCH), disk);
    }
    throw new Error("there is no such epoch");
  }

  /** Of all that the epoch may have, the disk has the choice. On an image of its own, whatever was done to others. */
  async try(choice: Choice, mark = this.epoch.mark): Promise<Finding | undefined> {
    this.place.image.discard();
    return this.place.try(this.#disk, differenceOf(choice, this.#disk), mark);
  }

  /** What a disk without any change holds. */
  async tryEmpty(): Promise<Finding | undefined> {
    return this.place.try(new Disk(this.subject.contents, () => undefined), new Map(), undefined);
  }

  /** Makes the image what the power failure leaves, before a checker has written to it. @returns its path. */
  load(choice: Choice): string {
    this.place.image.discard();
    this.place.image.load(this.#disk, differenceOf(choice, this.#disk));
    return this.place.image.path;
  }

  async close(): Promise<void> {
    await this.place.close();
  }
}

/** The name of its directory. */
const BENCH = "bench";
