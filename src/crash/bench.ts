/** One state at a time, of one epoch: what is done with a finding, and before all others. */
import { join } from "node:path";
import { Check, type Checker, type Finding } from "./checker.ts";
import type { Choice } from "./choices.ts";
import type { Contents } from "./contents.ts";
import { differenceOf, Disk } from "./disk.ts";
import { type Epoch, epochsOf } from "./epochs.ts";
import type { History } from "./history.ts";
import { Image } from "./image.ts";

/** What states are made of, and what is to be done with them. */
export interface Subject {
  readonly history: History;
  readonly contents: Contents;
  /** Bytes of the device. */
  readonly size: number;
  readonly checker: Checker;
  /** Milliseconds that the checker may take. */
  readonly timeoutMs: number;
  /** Of its own, for images and what checkers leave. */
  readonly directory: string;
}

export class Bench {
  readonly image: Image;
  readonly check: Check;
  readonly #disk: Disk;

  private constructor(
    readonly subject: Subject,
    readonly epoch: Epoch,
    disk: Disk,
  ) {
    this.#disk = disk;
    this.image = new Image(join(subject.directory, "bench.img"), subject.size, subject.contents);
    this.check = new Check(subject.checker, subject.directory);
  }

  /** At the first epoch for which `isWanted` says so. */
  static at(subject: Subject, from: number, isWanted: (epoch: Epoch) => boolean): Bench {
    const disk = new Disk(subject.contents, () => undefined);
    for (const epoch of epochsOf(subject.history, from)) {
      disk.store(epoch.stored);
      if (isWanted(epoch)) return new Bench(subject, epoch, disk);
    }
    throw new Error("there is no such epoch");
  }

  /** Of all that the epoch may have, the disk has the choice. On an image of its own, whatever was done to others. */
  async try(choice: Choice, mark = this.epoch.mark): Promise<Finding | undefined> {
    this.image.discard();
    this.load(choice);
    return this.check.run({ image: this.image.path, mark, timeoutMs: this.subject.timeoutMs });
  }

  load(choice: Choice): void {
    this.image.load(this.#disk, differenceOf(choice, this.#disk));
  }

  /** What a disk without any change holds. */
  async tryEmpty(): Promise<Finding | undefined> {
    this.image.discard();
    this.image.load(new Disk(this.subject.contents, () => undefined), new Map());
    return this.check.run({ image: this.image.path, mark: undefined, timeoutMs: this.subject.timeoutMs });
  }

  close(): void {
    this.check.kill();
    this.image.close();
  }
}
