/**
 * A program that uses a device: it writes, reads and flushes blocks, keeps a journal, and checks that it reads what the
 * device acknowledged. It is a process of its own because it may hang in the kernel.
 *
 * Its only argument is a {@link ClientOrder} as JSON. It exits with 0 if it saw no wrong data, even if requests failed.
 * Otherwise it prints a line on stdout for each fault and exits with 1.
 */
import { libc } from "tsbuse";
import { Random } from "../../../src/values/random.ts";
import { faultOf, fillBlock } from "./contents.ts";
import { type BlockState, Journal, readJournal } from "./journal.ts";
import { openStore, type Store } from "./store.ts";

export interface ClientOrder {
  /** A node, a directory, or the URI of a server. */
  readonly target: string;
  readonly journal: string;
  readonly blocks: number;
  readonly blockBytes: number;
  readonly lanes: number;
  /** The total number of operations; absent: read everything in the journal, and write nothing. */
  readonly operations?: number | undefined;
  readonly seed: number;
  /** Whether it ends once everything fails; otherwise it tries on. */
  readonly givesUp: boolean;
}

/** After this many failures in a row, in one lane, the device is gone. */
const FAILURES_MAX = 20;
/** Time between a failure and the next try, in milliseconds. */
const RETRY_MS = 5;
const FAULTS_MAX = 5;

class Client {
  readonly #memory: libc.Memory;
  readonly #states = new Map<number, BlockState>();
  readonly faults: string[] = [];
  #done = 0;

  constructor(
    readonly order: ClientOrder,
    readonly store: Store,
    readonly journal: Journal,
  ) {
    this.#memory = new libc.Memory(order.lanes * order.blockBytes);
  }

  get #isOver(): boolean {
    return this.faults.length >= FAULTS_MAX || this.#done >= (this.order.operations ?? 0);
  }

  /** Each lane has blocks of its own, and one operation at a time. */
  async run(): Promise<void> {
    await Promise.all(Array.from({ length: this.order.lanes }, (_, lane) => this.#runLane(lane)));
  }

  async #runLane(lane: number): Promise<void> {
    const { lanes, blocks, seed } = this.order;
    const failuresMax = this.order.givesUp ? FAILURES_MAX : Number.POSITIVE_INFINITY;
    const random = new Random(seed + lane);
    const bytes = this.#buffer(lane);
    for (let failures = 0; !this.#isOver && failures < failuresMax;) {
      const block = random.below(Math.floor(blocks / lanes)) * lanes + lane;
      const kind = random.below(10);
      const work = kind < 7 ? this.#write : kind < 9 ? this.#read : this.#flush;
      if (await work.call(this, block, bytes)) {
        failures = 0;
        this.#done += 1;
      } else {
        failures += 1;
        await Bun.sleep(RETRY_MS);
      }
    }
  }

  /** Reads every block that was ever written. */
  async verify(states: ReadonlyMap<number, BlockState>): Promise<void> {
    for (const [block, state] of states) {
      if (this.faults.length >= FAULTS_MAX) return;
      const bytes = this.#buffer(0);
      if (await succeeds(this.store.read(block, bytes))) this.#check(bytes, block, state);
      else this.faults.push(`block ${block} cannot be read`);
    }
  }

  async #write(block: number, bytes: Uint8Array): Promise<boolean> {
    const state = this.#stateOf(block);
    const generation = state.begun + 1;
    state.begun = generation;
    fillBlock(wordsOf(bytes), block, generation);
    this.journal.put("begun", block, generation);
    const isDone = await succeeds(this.store.write(block, bytes));
    this.journal.put(isDone ? "done" : "failed", block, generation);
    if (isDone) state.acknowledged = generation;
    return isDone;
  }

  async #read(block: number, bytes: Uint8Array): Promise<boolean> {
    if (!(await succeeds(this.store.read(block, bytes)))) return false;
    this.#check(bytes, block, this.#stateOf(block));
    return true;
  }

  async #flush(block: number): Promise<boolean> {
    const isDone = await succeeds(this.store.flush());
    this.journal.put(isDone ? "flushed" : "failed", block, this.#stateOf(block).begun);
    return isDone;
  }

  #check(bytes: Uint8Array, block: number, state: BlockState): void {
    const fault = faultOf(wordsOf(bytes), block, state);
    if (fault !== undefined) this.faults.push(fault);
  }

  #stateOf(block: number): BlockState {
    const known = this.#states.get(block) ?? { acknowledged: 0, begun: 0 };
    this.#states.set(block, known);
    return known;
  }

  #buffer(lane: number): Uint8Array {
    const { blockBytes } = this.order;
    return this.#memory.bytes().subarray(lane * blockBytes, (lane + 1) * blockBytes);
  }
}

function wordsOf(bytes: Uint8Array): Uint32Array {
  return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
}

/** Errors are expected in a torture: the journal has all of them, and the first one is printed. */
let isTold = false;
async function succeeds(work: Promise<void>): Promise<boolean> {
  try {
    await work;
    return true;
  } catch (error) {
    if (!isTold) console.error(`client: ${String(error)}`);
    isTold = true;
    return false;
  }
}

if (import.meta.main) {
  // Trusted: the caller builds it with the same type.
  const order: ClientOrder = JSON.parse(process.argv[2] ?? "");
  const journal = new Journal(order.journal);
  const client = new Client(order, await openStore(order.target), journal);
  await (order.operations === undefined ? client.verify(readJournal(order.journal).blocks) : client.run());
  await client.store.close();
  journal.close();
  for (const fault of client.faults) console.log(`fault: ${fault}`);
  process.exit(client.faults.length > 0 ? 1 : 0);
}
