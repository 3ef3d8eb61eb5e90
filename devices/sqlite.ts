/** A disk in a table of a SQLite database. The writes of one turn of the event loop are one transaction. */
import { Database } from "bun:sqlite";
import { statSync } from "node:fs";
import type { BlockDevice, OptionTable, OptionValues } from "tsbuse";

export const options = { file: { type: "string" }, size: { type: "size" } } satisfies OptionTable;

const BLOCK = 4096;
const RANGE = "FROM block WHERE number >= ? AND number < ?";

export default class SqliteDisk implements BlockDevice {
  readonly blockSize = BLOCK;
  readonly size: number;
  readonly identity?: string;
  readonly #database: Database;
  #commit: Promise<void> | undefined;
  readonly #changes: (() => void)[] = [];

  constructor({ file, size }: OptionValues<typeof options>) {
    this.size = size;
    this.#database = new Database(file);
    // A database ":memory:" is lost with this process.
    const stats = statSync(file, { bigint: true, throwIfNoEntry: false });
    // The inode, since another file may have this name later. From stat(2), since opening and closing the file once
    // more would drop SQLite's locks.
    if (stats?.isFile() === true) this.identity = `sqlite:${stats.dev}/${stats.ino}/${stats.birthtimeNs}`;
    // A write is answered once its commit is on stable storage: there is nothing to flush.
    this.#database.run("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
    this.#database.run("CREATE TABLE IF NOT EXISTS block (number INTEGER PRIMARY KEY, bytes BLOB)");
  }

  read(target: Uint8Array, offset: number): void {
    const query = this.#database.query<{ number: number; bytes: Uint8Array }, number[]>(`SELECT * ${RANGE}`);
    target.fill(0);
    for (const { number, bytes } of query.all(offset / BLOCK, (offset + target.length) / BLOCK))
      target.set(bytes, number * BLOCK - offset);
  }

  write(source: Uint8Array, offset: number): Promise<void> {
    const put = this.#database.query("REPLACE INTO block VALUES (?, ?)");
    return this.#change(() => {
      for (let at = 0; at < source.length; at += BLOCK)
        put.run((offset + at) / BLOCK, source.subarray(at, at + BLOCK));
    });
  }

  trim(offset: number, length: number): Promise<void> {
    const remove = this.#database.query(`DELETE ${RANGE}`);
    return this.#change(() => remove.run(offset / BLOCK, (offset + length) / BLOCK));
  }

  close = (): void => this.#database.close();

  #change(change: () => void): Promise<void> {
    this.#changes.push(change);
    return (this.#commit ??= this.#commitNextTurn());
  }

  async #commitNextTurn(): Promise<void> {
    await Bun.sleep(0);
    const changes = this.#changes.splice(0);
    this.#commit = undefined;
    this.#database.transaction(() => changes.forEach((change) => change()))();
  }
}
