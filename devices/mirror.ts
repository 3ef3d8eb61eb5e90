/** The same bytes on several devices: reads take turns, and one that fails a write is left out from then on. */
import { type BlockDevice, ErrnoError, type OptionTable, type OptionValues } from "tsbuse";
import { Loop } from "./loop.ts";

export const options = { files: { type: "string" } } as const satisfies OptionTable;

export class Mirror implements BlockDevice {
  readonly size: number;
  #members: readonly BlockDevice[];

  /** @param all of blocks of 512 bytes, none of them read-only. */
  constructor(readonly all: readonly BlockDevice[]) {
    this.#members = all;
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
    await Promise.all(this.all.map((member) => member.close?.()));
  }

  /** Has failed when no member is left that has not. */
  async #onEach(change: (member: BlockDevice) => void | Promise<void>): Promise<void> {
    const results = this.#members.map(async (member) => {
      await Promise.try(change, member).catch((error: unknown) => {
        this.#members = this.#members.filter((other) => other !== member);
        console.error(`mirror: member ${this.all.indexOf(member)} is left out: ${error}`);
        throw error;
      });
    });
    await Promise.allSettled(results);
    if (this.#members.length === 0) throw new ErrnoError("EIO", "no member is left");
  }
}

export default ({ files }: OptionValues<typeof options>): BlockDevice =>
  new Mirror(files.split(",").map((file) => new Loop(file)));
