/** The command `statistics`: all that a serving process has counted, for "tsbuse top". Both sides of it. */
import { LEDGER_CELLS, oldestOf, sumLedgers, type Unanswered } from "../queues/ledger.ts";
import type { LayerTime } from "../layers/layer-times.ts";
import type { Status, Subject } from "./commands.ts";
import { isMessage, type Message } from "./connection.ts";

/** The version of the ledger's cells and of what is sent with them. */
const LAYOUT = 1;
/** How long layers stay watched after a question, at most, in milliseconds. */
const WATCH_MAX_MS = 60_000;

/** What a serving process has counted so far. */
export interface Statistics {
  readonly status: Pick<Status, "pid" | "version" | "path" | "size" | "readOnly" | "words" | "inFlight">;
  /** The time of the count, in milliseconds by that process's clock. */
  readonly atMs: number;
  /** The number of queues. If there are several, each has a thread of its own. */
  readonly queues: number;
  /** The sum over all queues: see queues/ledger.ts. */
  readonly cells: Float64Array;
  readonly oldest: Unanswered | undefined;
  readonly layers: readonly LayerTime[];
}

/** What `statistics` adds to {@link Status}. `watchMs`: how long to watch the layers from now on. */
export function statistics(subject: Subject, { watchMs }: Message): Message {
  const { transport, layers } = subject;
  const { ledgers } = transport;
  if (typeof watchMs === "number" && watchMs > 0) layers.watch(Math.min(watchMs, WATCH_MAX_MS));
  const oldest = ledgers.flatMap((cells) => oldestOf(cells) ?? []);
  return {
    layout: LAYOUT,
    atMs: performance.now(),
    queues: ledgers.length,
    cells: sparse(sumLedgers(ledgers)),
    oldest: oldest.toSorted((one, other) => other.ageMs - one.ageMs)[0] ?? null,
    layers: layers.times,
  };
}

/** The answer of {@link statistics}; undefined if it comes from another version. */
export function parseStatistics(answer: Message): Statistics | undefined {
  const { layout, pid, version, path, size, readOnly, words, inFlight, atMs, queues, oldest, layers } =
    answer;
  if (layout !== LAYOUT || !isNumber(pid) || !isNumber(size) || !isNumber(inFlight)) return undefined;
  if (!isNumber(atMs) || !isNumber(queues) || typeof version !== "string" || typeof path !== "string")
    return undefined;
  const cells = dense(answer["cells"]);
  if (cells === undefined || !Array.isArray(words) || !Array.isArray(layers)) return undefined;
  return {
    status: { pid, version, path, size, readOnly: readOnly === true, words: words.map(String), inFlight },
    atMs,
    queues,
    cells,
    oldest: isUnanswered(oldest) ? oldest : undefined,
    layers: layers.filter(isLayerTime),
  };
}

/** The index and content of each cell that is not 0: most are. */
function sparse(cells: Float64Array): number[] {
  const pairs: number[] = [];
  for (const [at, cell] of cells.entries()) if (cell !== 0) pairs.push(at, cell);
  return pairs;
}

function dense(pairs: unknown): Float64Array | undefined {
  if (!Array.isArray(pairs) || !pairs.every(isNumber)) return undefined;
  const cells = new Float64Array(LEDGER_CELLS);
  for (let index = 0; index + 1 < pairs.length; index += 2) cells[pairs[index] ?? 0] = pairs[index + 1] ?? 0;
  return cells;
}

function isNumber(value: unknown): value is number {
  return typeof value === "number";
}

function isUnanswered(value: unknown): value is Unanswered {
  return (
    isMessage(value) &&
    typeof value["kind"] === "string" &&
    isNumber(value["offset"]) &&
    isNumber(value["length"]) &&
    isNumber(value["ageMs"])
  );
}

function isLayerTime(value: unknown): value is LayerTime {
  return (
    isMessage(value) &&
    typeof value["name"] === "string" &&
    isNumber(value["requests"]) &&
    isNumber(value["ms"])
  );
}
