/** Tries single states of one epoch: to examine a finding, and to test the checker before the run. */
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

  /** Opens a place at the first epoch that `isWanted` accepts. @throws UserError */
  static async at(subject: Subject, from: number, isWanted: (epoch: Epoch) => boolean): Promise<Bench> {
    const disk = new Disk(subject.contents, () => undefined);
    for (const epoch of epochsOf(subject.history, from)) {
      disk.store(epoch.stored);
      if (isWanted(epoch)) return new Bench(subject, epoch, await Place.open(subject, BENCH), disk);
    }
    throw new Error("there is no such epoch");
  }

  /** Tries the state in which the disk has these pending changes, on a new image. */
  async try(choice: Choice, mark = this.epoch.mark): Promise<Finding | undefined> {
    this.place.image.discard();
    return this.place.try(this.#disk, differenceOf(choice, this.#disk), mark);
  }

  /** Tries the disk without any change. */
  async tryEmpty(): Promise<Finding | undefined> {
    return this.place.try(new Disk(this.subject.contents, () => undefined), new Map(), undefined);
  }

  /** Makes the image as the power failure leaves it, untouched by any checker. @returns its path. */
  load(choice: Choice): string {
    this.place.image.discard();
    this.place.image.load(this.#disk, differenceOf(choice, this.#disk));
    return this.place.image.path;
  }

  async close(): Promise<void> {
    await this.place.close();
  }
}

/** The name of the directory. */
const BENCH = "bench";
