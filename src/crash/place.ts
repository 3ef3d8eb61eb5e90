/** Where one checker works: its image, a directory, and a node if it needs one. */
import { join } from "node:path";
import { Check, type Checker, type Finding } from "./checker.ts";
import type { Contents } from "./contents.ts";
import { makeDirectory } from "./directory.ts";
import type { Difference, Disk } from "./disk.ts";
import type { History } from "./history.ts";
import { Image } from "./image.ts";
import { type NodeOptions, StateNode } from "./state-node.ts";

/** What states are made from, and how they are checked. */
export interface Subject {
  readonly history: History;
  readonly contents: Contents;
  /** The size of the device, in bytes. */
  readonly size: number;
  readonly checker: Checker;
  /** The checker's time limit, in milliseconds. */
  readonly timeoutMs: number;
  /** The run's own directory, for images and the checkers' files. */
  readonly directory: string;
  /** Given if the checker gets a node as well. */
  readonly node?: NodeOptions | undefined;
}

export class Place {
  readonly image: Image;
  readonly #check: Check;

  private constructor(
    readonly subject: Subject,
    readonly directory: string,
    readonly node: StateNode | undefined,
  ) {
    const { size, contents, checker } = subject;
    this.image = new Image(join(directory, "disk.img"), size, contents, node !== undefined);
    this.#check = new Check(checker, directory);
  }

  /** @param name of the directory to make. @throws UserError */
  static async open(subject: Subject, name: string): Promise<Place> {
    const directory = join(subject.directory, name);
    makeDirectory(directory);
    const node = subject.node === undefined ? undefined : await StateNode.attach(subject.size, subject.node);
    return new Place(subject, directory, node);
  }

  /** What is wrong with a state; undefined if nothing. @throws UserError if the checker could not tell. */
  async try(disk: Disk, difference: Difference, mark: string | undefined): Promise<Finding | undefined> {
    this.image.load(disk, difference);
    await this.node?.show(this.image.clean);
    const { timeoutMs } = this.subject;
    return this.#check.run({ image: this.image.path, device: this.node?.path, mark, timeoutMs });
  }

  /** Ends a running checker. */
  kill(): void {
    this.#check.kill();
  }

  /** @throws UserError if the node stays in use. */
  async close(): Promise<void> {
    this.kill();
    await this.node?.close();
    this.image.close();
  }
}
