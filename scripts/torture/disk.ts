/** A device over a file, for tortures: it can answer late, hang, and lie. Its data outlives its process. */
import { closeSync, existsSync, fstatSync, openSync, readSync, writeFileSync, writeSync } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import type { BlockDevice, OptionTable, OptionValues } from "tsbuse";

export const options = {
  file: { type: "string" },
  /** Whether its methods return promises. */
  promises: { type: "boolean", default: "no" },
  /** While a file of this name exists, every request hangs. */
  hang: { type: "string", default: "" },
  /** If N is not 0, every Nth write is acknowledged and dropped. */
  lie: { type: "number", default: "0" },
  /** If N is not 0, every Nth write leaves a file open. */
  leak: { type: "number", default: "0" },
  /** The file to write when the device takes over from another one. */
  mark: { type: "string", default: "" },
} as const satisfies OptionTable;

type Options = OptionValues<typeof options>;

class Disk implements BlockDevice {
  readonly size: number;
  /** The file: it has everything that was acknowledged. */
  readonly identity: string;
  readonly #fd: number;
  #writes = 0;

  constructor(
    readonly given: Options,
    readonly handle: FileHandle | undefined,
  ) {
    this.identity = given.file;
    this.#fd = openSync(given.file, "r+");
    this.size = fstatSync(this.#fd).size;
  }

  read(target: Uint8Array, offset: number): void | Promise<void> {
    if (this.#hangs()) return never();
    if (this.handle !== undefined) return this.handle.read(target, 0, target.length, offset).then(nothing);
    readSync(this.#fd, target, 0, target.length, offset);
  }

  write(source: Uint8Array, offset: number): void | Promise<void> {
    if (this.#hangs()) return never();
    this.#writes += 1;
    const { leak, lie } = this.given;
    if (leak > 0 && this.#writes % leak === 0) openSync("/dev/null", "r");
    if (lie > 0 && this.#writes % lie === 0) return;
    if (this.handle !== undefined) return this.handle.write(source, 0, source.length, offset).then(nothing);
    writeSync(this.#fd, source, 0, source.length, offset);
  }

  flush(): void | Promise<void> {
    if (this.#hangs()) return never();
    return this.handle?.datasync();
  }

  takeOver(): void {
    writeFileSync(this.given.mark, "");
  }

  async close(): Promise<void> {
    closeSync(this.#fd);
    await this.handle?.close();
  }

  #hangs(): boolean {
    return this.given.hang !== "" && existsSync(this.given.hang);
  }
}

function never(): Promise<void> {
  return new Promise(() => undefined);
}

function nothing(): void {
  // Turns the results of the file's methods into void.
}

export default async (given: Options): Promise<BlockDevice> =>
  new Disk(given, given.promises ? await open(given.file, "r+") : undefined);
