/** `tsbuse trace`: from a device in use to a terminal, a pipe or a file, until it is stopped. */
import { setTimeout as later } from "node:timers/promises";
import { UserError } from "../../errors.ts";
import { nameOf } from "../../trace/lines.ts";
import type { Traced } from "../../trace/request.ts";
import { TraceSession } from "../../trace/session.ts";
import { log } from "../log.ts";
import { lostLine, type TraceOutput, traceFile, traceText } from "./output.ts";

export interface TraceOptions {
  readonly json: boolean;
  readonly write: string | undefined;
  readonly data: boolean;
  readonly seconds: number | undefined;
  readonly count: number | undefined;
  /** The names of the commands to trace; undefined: all. */
  readonly command: ReadonlySet<string> | undefined;
}

/** How often to ask the process for more, in milliseconds. A ring holds answers for several times as long. */
const INTERVAL_MS = 20;
/** How long the process may be silent before a warning. */
const SILENCE_MS = 5000;
/** The same at the end, when its answer is no longer needed. */
const END_LIMIT_MS = 1000;
/** After this many answers for each queue, everything that the rings hold has been fetched. */
const LAST_ROUNDS = 4;

/** Returns the exit status. @throws UserError */
export async function trace(target: string, options: TraceOptions): Promise<number> {
  using session = await TraceSession.begin(target, options.data);
  const stop = new AbortController();
  const abort = (): void => stop.abort();
  const timer = options.seconds === undefined ? undefined : setTimeout(abort, options.seconds * 1000);
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, abort);
  try {
    const { write } = options;
    const output =
      write === undefined ? traceText(options.json, stop.signal) : traceFile(write, session, options.data);
    try {
      return await follow(target, session, options, output, stop.signal);
    } finally {
      output.close();
    }
  } finally {
    clearTimeout(timer);
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.off(signal, abort);
  }
}

async function follow(
  target: string,
  session: TraceSession,
  { count = Infinity, command }: TraceOptions,
  output: TraceOutput,
  stop: AbortSignal,
): Promise<number> {
  const reader = new Reader(target, session, stop);
  let [traced, lost] = [0, 0];
  while (traced < count && !output.isOver) {
    const found = await reader.next();
    if (found === undefined) break;
    const wanted = found.requests.filter((each) => command?.has(nameOf(each)) ?? true);
    const requests = wanted.slice(0, count - traced);
    traced += requests.length;
    lost += found.lost;
    await output.take({ ...found, requests });
  }
  if (lost > 0) log.warn(lostLine(lost));
  return output.finish(traced);
}

/** Asks for more until it must end, and then once more for what was answered until then. */
class Reader {
  readonly #target: string;
  readonly #session: TraceSession;
  readonly #stop: AbortSignal;
  #pending: Promise<Traced> | undefined;
  #isMore = true;
  #lastRounds = 0;
  #isOver = false;

  constructor(target: string, session: TraceSession, stop: AbortSignal) {
    this.#target = target;
    this.#session = session;
    this.#stop = stop;
  }

  /** Undefined when the trace is over. */
  async next(): Promise<Traced | undefined> {
    if (!this.#isMore) await later(INTERVAL_MS, undefined, { signal: this.#stop }).catch(() => undefined);
    const isEnding = this.#stop.aborted;
    if (this.#isOver) return undefined;
    const found = await this.#answer(isEnding);
    if (found === undefined) return isEnding || !this.#stop.aborted ? undefined : this.next();
    this.#isMore = found.isMore;
    if (isEnding) this.#lastRounds += 1;
    this.#isOver = isEnding && (!found.isMore || this.#lastRounds >= LAST_ROUNDS * found.queues);
    return found;
  }

  /** Undefined if there is no answer: the device is no longer served, or the trace must end. */
  async #answer(isEnding: boolean): Promise<Traced | undefined> {
    const { pid } = this.#session;
    const none = Promise.withResolvers<undefined>();
    const giveUp = (): void => none.resolve(undefined);
    const silence = setTimeout(
      () =>
        log.warn(`process ${pid} does not answer: it is stopped, or its device holds it up; still waiting`),
      SILENCE_MS,
    );
    const limit = isEnding ? setTimeout(giveUp, END_LIMIT_MS) : undefined;
    if (!isEnding) this.#stop.addEventListener("abort", giveUp);
    try {
      this.#pending ??= this.#session.next();
      // The process may have ended.
      this.#pending.catch(() => undefined);
      const found = await Promise.race([this.#pending, none.promise]);
      if (found !== undefined) this.#pending = undefined;
      else if (isEnding) log.warn(`process ${pid} does not answer: what it has answered last is missing`);
      return found;
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      log.warn(`${this.#target} is not served by process ${pid} any more: the trace ends here`);
      return undefined;
    } finally {
      clearTimeout(silence);
      clearTimeout(limit);
      this.#stop.removeEventListener("abort", giveUp);
    }
  }
}
