/**
 * The same bytes in several files. Reads take turns. A file that fails a write is left out from then on, in later runs
 * too. To take it back in, copy another member to it and delete the note, FILE.left-out, while nothing runs.
 */
import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import { resolve } from "node:path";
import { type BlockDevice, ErrnoError, type OptionTable, type OptionValues, UserError } from "tsbuse";
import { Loop } from "./loop.ts";

export const options = { files: { type: "string" } } as const satisfies OptionTable;

export class Mirror implements BlockDevice {
  readonly size: number;
  #members: readonly BlockDevice[];
  readonly #notes: readonly number[];

  /** @param all members: whole blocks of 512 bytes, none read-only. `files` has the path of each. */
  constructor(
    readonly all: readonly BlockDevice[],
    readonly files: readonly string[],
  ) {
    this.#notes = files.map((file) => openSync(`${file}.left-out`, "as+"));
    const stale = new Set(this.#notes.flatMap((note) => readFileSync(note, "utf8").match(/.+/g) ?? []));
    const stranger = [...stale].find((file) => !files.includes(file));
    if (stranger) throw new UserError(`a .left-out names ${stranger}, no member: put its new name there`);
    this.#members = all.filter((_, index) => !stale.has(files[index] ?? ""));
    if (this.#members.length === 0) throw new UserError("all members miss writes: empty one's .left-out");
    for (const file of stale) console.error(`mirror: ${file} has missed writes: left out`);
    this.size = Math.min(...all.map(({ size }) => size));
  }

  async read(target: Uint8Array, offset: number): Promise<void> {
    let failure: unknown = new ErrnoError("EIO", "no member is left");
    this.#members = [...this.#members.slice(1), ...this.#members.slice(0, 1)];
    for (const member of this.#members) {
      try {
        return await member.read(target, offset);
      } catch (error) {
        failure = error;
      }
    }
    throw failure;
  }

  write(source: Uint8Array, offset: number): Promise<void> {
    return this.#onEach((member) => member.write?.(source, offset, { fua: false }));
  }

  flush(): Promise<void> {
    return this.#onEach((member) => member.flush?.());
  }

  async close(): Promise<void> {
    const closed = await Promise.allSettled(this.all.map(async (member) => member.close?.()));
    this.#notes.forEach((note) => closeSync(note));
    for (const one of closed) if (one.status === "rejected") throw one.reason;
  }

  /** Fails once every member has failed. */
  async #onEach(change: (member: BlockDevice) => void | Promise<void>): Promise<void> {
    const results = this.#members.map((member) =>
      Promise.try(change, member).catch((error: unknown) => this.#leaveOut(member, error)),
    );
    await Promise.all(results);
    if (this.#members.length === 0) throw new ErrnoError("EIO", "no member is left");
  }

  /** Notes on the other members' disks that this one is left out, before a write that it missed is answered. */
  #leaveOut(member: BlockDevice, error: unknown): void {
    if (!this.#members.includes(member)) return;
    const name = this.files[this.all.indexOf(member)];
    console.error(`mirror: ${name} is left out: ${error}`);
    this.#members = this.#members.filter((other) => other !== member);
    for (const other of this.#members) {
      try {
        writeSync(this.#notes[this.all.indexOf(other)] ?? -1, `${name}\n`);
      } catch (reason) {
        this.#leaveOut(other, reason);
      }
    }
  }
}

export default ({ files }: OptionValues<typeof options>): BlockDevice => {
  const paths = files.split(",").map((file) => resolve(file));
  const members = paths.map((path) => new Loop(path));
  return new Mirror(members, paths);
};
