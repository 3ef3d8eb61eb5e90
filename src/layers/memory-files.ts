/** Files in memory that layers keep data in, so that it goes along when another process takes the device over. */
import { UserError } from "../errors.ts";
import { close } from "../libc/file.ts";
import { memoryFile } from "../libc/memory.ts";

/** Takes a file that the process before has left: a descriptor, the caller's from then on; undefined for none. */
export type TakeFile = (name: string) => number | undefined;

export class MemoryFiles {
  readonly #take: TakeFile | undefined;
  readonly #fds: Record<string, number> = {};
  #keepers = 0;

  /** @param take absent where there is no process before: the files are new. */
  constructor(take?: TakeFile) {
    this.#take = take;
  }

  /** Descriptors by their names, which are the same in every process with the same layers. */
  get fds(): Readonly<Record<string, number>> {
    return this.#fds;
  }

  /**
   * Opens the files of a layer. They are its own from then on, until it is closed.
   * @param layer its name.
   * @param sizes in bytes, of each file.
   * @throws UserError when the process before has none.
   */
  open<Name extends string>(layer: string, sizes: Readonly<Record<Name, number>>): Record<Name, number> {
    this.#keepers += 1;
    const opened: Record<string, number> = {};
    try {
      for (const [name, size] of Object.entries<number>(sizes))
        opened[name] = this.#open(`layer${this.#keepers}.${name}`, layer, size);
    } catch (error) {
      for (const fd of Object.values(opened)) close(fd);
      throw error;
    }
    return opened;
  }

  #open(name: string, layer: string, size: number): number {
    const fd = this.#take === undefined ? memoryFile(size) : this.#take(name);
    if (fd === undefined)
      throw new UserError(
        `the process that serves the device keeps nothing in memory for the layer ${layer}: give the layers that it was attached with`,
      );
    this.#fds[name] = fd;
    return fd;
  }
}
