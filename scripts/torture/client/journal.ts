/**
 * A client's requests and their results, in a file that outlives the client. Each write of a block makes a new
 * generation of its contents; 0 is the initial one.
 */
import { closeSync, openSync, readFileSync, writeSync } from "node:fs";

/** What the journal says about a block. */
export interface BlockState {
  /** The last generation that was acknowledged. */
  acknowledged: number;
  /** The last one that was begun: the block may have it, or any between the two. */
  begun: number;
}

const RECORD = { kind: 0, block: 4, generation: 8, size: 12 } as const;
const KINDS = ["begun", "done", "failed", "flushed"] as const;
export type RecordKind = (typeof KINDS)[number];

/** A record is one write(2), so a killed client leaves no partial one. */
export class Journal {
  readonly #fd: number;
  readonly #record = new DataView(new ArrayBuffer(RECORD.size));

  constructor(path: string) {
    this.#fd = openSync(path, "a");
  }

  put(kind: RecordKind, block: number, generation: number): void {
    this.#record.setUint32(RECORD.kind, KINDS.indexOf(kind));
    this.#record.setUint32(RECORD.block, block);
    this.#record.setUint32(RECORD.generation, generation);
    writeSync(this.#fd, this.#record);
  }

  close(): void {
    closeSync(this.#fd);
  }
}

export interface JournalState {
  readonly blocks: ReadonlyMap<number, BlockState>;
  readonly done: number;
  readonly failed: number;
}

/** Reads a journal; its client may still run, or may have been killed. */
export function readJournal(path: string): JournalState {
  const bytes = readFileSync(path);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const blocks = new Map<number, BlockState>();
  let done = 0;
  let failed = 0;
  for (let at = 0; at + RECORD.size <= bytes.length; at += RECORD.size) {
    const kind = KINDS[view.getUint32(at + RECORD.kind)];
    const block = view.getUint32(at + RECORD.block);
    const generation = view.getUint32(at + RECORD.generation);
    const state = blocks.get(block) ?? { acknowledged: 0, begun: 0 };
    if (kind === "begun") state.begun = generation;
    if (kind === "done") state.acknowledged = generation;
    if (kind === "done" || kind === "flushed") done += 1;
    if (kind === "failed") failed += 1;
    if (kind !== "flushed") blocks.set(block, state);
  }
  return { blocks, done, failed };
}
