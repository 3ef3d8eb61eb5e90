/** The loop of "tsbuse top": asks, shows, and waits for the next tick. */
import { whyNotFound } from "../../control/client.ts";
import { UserError } from "../../errors.ts";
import { errorText } from "../../libc/errno.ts";
import { PromptWriter } from "../../libc/prompt-writer.ts";
import { errno } from "../../uapi/errno.ts";
import { type DeviceState, deviceState, GRACE_MS, tickJson } from "./device-state.ts";
import { drawFrame, type Frame, keyOf } from "./screen.ts";
import { Terminal, writeAll } from "./terminal.ts";
import { Watched } from "./watched.ts";

export interface TopOptions {
  readonly target: string | undefined;
  readonly json: boolean;
  readonly intervalMs: number;
  /** The number of ticks; undefined: no limit. */
  readonly count: number | undefined;
}

/** How many ticks the sparkline shows. */
const HISTORY = 64;
const COLUMNS = 80;
/** How long a process may take to report what it serves, in milliseconds. */
const FIND_LIMIT_MS = 5000;

const STDOUT = 1;

/** Shows a tick. Returns 0, or -errno when it cannot be shown. */
type Show = (devices: readonly DeviceState[], seconds: number) => Promise<number>;

/** Returns the exit status. @throws UserError when nobody serves the target, or nothing can be printed. */
export async function top(options: TopOptions): Promise<number> {
  const { json, target } = options;
  // The layers are watched until the next question, and a little longer.
  const watched = new Watched(target, 2 * options.intervalMs + 1000);
  await watched.ask(GRACE_MS);
  if (target !== undefined) await find(watched);
  if (target !== undefined && watched.all.length === 0)
    throw new UserError(whyNotFound(target, watched.silent));
  const history = new History();
  if (json || !process.stdout.isTTY) {
    const writer = new PromptWriter(STDOUT);
    return run(options, watched, (devices, seconds) => {
      if (json) return writeAll(writer, `${tickJson(devices, seconds)}\n`);
      history.add(devices);
      const lines = drawFrame(devices, history.numbers, {
        ...frameOf(seconds, ""),
        columns: COLUMNS,
        rows: Infinity,
      });
      return writeAll(writer, `${lines.join("\n")}\n\n`);
    });
  }
  const terminal = new Terminal();
  try {
    let last: [readonly DeviceState[], number] = [[], 0];
    const draw = (): Promise<number> =>
      terminal.draw(
        drawFrame(last[0], history.numbers, frameOf(last[1], process.stdin.isTTY ? "q: quit" : "")),
      );
    terminal.onResize = () => void draw();
    const show: Show = (devices, seconds) => {
      history.add(devices);
      last = [devices, seconds];
      return draw();
    };
    return await run(options, watched, show, terminal.ended);
  } finally {
    await terminal.close();
  }
}

/** A process that does not answer at once may serve the target. */
async function find(watched: Watched): Promise<void> {
  const until = performance.now() + FIND_LIMIT_MS;
  while (watched.isAwaited && performance.now() < until) await watched.ask(GRACE_MS);
}

/** @param ended settles with the exit status if it must end before the last tick. */
async function run(
  { intervalMs, count = Infinity }: TopOptions,
  watched: Watched,
  show: Show,
  ended?: Promise<number>,
): Promise<number> {
  const over = ended ?? new Promise<never>(() => undefined);
  let before = performance.now();
  let due = before + intervalMs;
  for (let tick = 0; tick < count; tick += 1) {
    const status = await Promise.race([over, Bun.sleep(due - performance.now())]);
    if (status !== undefined) return status;
    await watched.ask(GRACE_MS);
    const now = performance.now();
    const shown = show(watched.all.map(deviceState), (now - before) / 1000);
    const early = await Promise.race([over, shown.then(() => undefined)]);
    if (early !== undefined) return early;
    const failure = await shown;
    // The reader has all that it wants: "head", for example.
    if (failure === -errno.EPIPE) return 0;
    if (failure < 0) throw new UserError(`nothing can be printed (${errorText(-failure)}): make room`);
    before = now;
    // A late tick is not made up for.
    due = Math.max(due + intervalMs, now);
  }
  return 0;
}

/** Requests per second of each device in the last ticks. */
class History {
  readonly numbers = new Map<string, number[]>();

  add(devices: readonly DeviceState[]): void {
    const keys = new Set(devices.map(keyOf));
    for (const key of this.numbers.keys()) if (!keys.has(key)) this.numbers.delete(key);
    for (const device of devices) {
      const numbers = this.numbers.get(keyOf(device)) ?? [];
      this.numbers.set(keyOf(device), [...numbers, device.rates?.iops ?? 0].slice(-HISTORY));
    }
  }
}

function frameOf(seconds: number, hint: string): Frame {
  const { columns = COLUMNS, rows = Infinity } = process.stdout;
  const language = process.env["LC_ALL"] || process.env["LC_CTYPE"] || process.env["LANG"] || "";
  const isUnicode = /utf-?8/i.test(language);
  const time = new Date().toTimeString().slice(0, 8);
  return { columns: columns || COLUMNS, rows: rows || Infinity, isUnicode, time, seconds, hint };
}
