/** Traced requests, as the process that serves the device sends them. */
import { isMessage, type Message } from "../control/connection.ts";
import { UserError } from "../errors.ts";
import { entry, ENTRY_WORDS } from "../queues/trace-ring.ts";

/** One request that has been answered. */
export interface TracedRequest {
  /** The queue of the device that answered it, from 0. */
  readonly queue: number;
  /** NBD_CMD_* and NBD_CMD_FLAG_*, with every transport. */
  readonly command: number;
  readonly flags: number;
  /** Bytes. */
  readonly offset: number;
  readonly length: number;
  /** An errno; 0 for success. */
  readonly error: number;
  /** When it arrived, when the device got it, and when the device was done: milliseconds since the trace began. */
  readonly arrived: number;
  readonly begun: number;
  readonly settled: number;
  /** The data of a write, if known. */
  readonly data: Uint8Array | undefined;
}

/** One answer of the process. */
export interface Traced {
  /** How many queues the device has: each has its own ring. */
  readonly queues: number;
  /** In the order in which they were answered. */
  readonly requests: readonly TracedRequest[];
  /** How many others were overwritten before anybody asked for them. */
  readonly lost: number;
  readonly isMore: boolean;
}

/** @param start of the trace, in milliseconds since 1970. @throws UserError if this is not an answer of tsbuse. */
export function decodeTraced({ queues }: Message, start: number): Traced {
  if (!Array.isArray(queues)) throw notUnderstood();
  const batches = queues.map((each: unknown, queue) => decodeQueue(each, queue, start));
  return {
    queues: batches.length,
    requests: batches.flatMap(({ requests }) => requests).toSorted((a, b) => a.settled - b.settled),
    lost: batches.reduce((sum, { lost }) => sum + lost, 0),
    isMore: batches.some(({ isMore }) => isMore),
  };
}

function decodeQueue(batch: unknown, queue: number, start: number): Omit<Traced, "queues"> {
  if (!isMessage(batch)) throw notUnderstood();
  const { entries, data, lost, isMore, origin } = batch;
  if (typeof entries !== "string" || typeof data !== "string") throw notUnderstood();
  if (typeof lost !== "number" || typeof origin !== "number") throw notUnderstood();
  // A copy, because a Float64Array must be aligned.
  const words = new Float64Array(new Uint8Array(Buffer.from(entries, "base64")).buffer);
  const bytes = new Uint8Array(Buffer.from(data, "base64"));
  const since = origin - start;
  const requests: TracedRequest[] = [];
  for (let at = 0; at < words.length; at += ENTRY_WORDS) {
    const word = (place: number): number => words[at + place] ?? 0;
    const [length, from] = [word(entry.length), word(entry.data)];
    requests.push({
      queue,
      command: word(entry.command),
      flags: word(entry.flags),
      offset: word(entry.offset),
      length,
      error: word(entry.error),
      arrived: word(entry.arrived) + since,
      begun: word(entry.begun) + since,
      settled: word(entry.settled) + since,
      data: from < 0 ? undefined : bytes.subarray(from, from + length),
    });
  }
  return { requests, lost, isMore: isMore === true };
}

function notUnderstood(): UserError {
  return new UserError("the process that serves the device traces in another way: use the same version");
}
