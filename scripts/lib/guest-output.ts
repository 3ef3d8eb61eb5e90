/**
 * The output of the guest's command: passed on as it arrives, with the last lines kept for the report of a failure.
 */
import type { Writable } from "node:stream";

/** Keeps the last lines of what is added. */
export class Tail {
  static readonly #BYTES_MAX = 64 * 1024;
  #bytes: Buffer = Buffer.alloc(0);

  add(chunk: Buffer): void {
    this.#bytes = Buffer.concat([this.#bytes, chunk]).subarray(-Tail.#BYTES_MAX);
  }

  lines(count: number): readonly string[] {
    return lastLines(this.#bytes.toString(), count);
  }
}

/** The last `count` lines of `text`, without carriage returns and terminal controls. */
export function lastLines(text: string, count: number): readonly string[] {
  const lines = Bun.stripANSI(text).replaceAll("\r", "").split("\n");
  if (lines.at(-1) === "") lines.pop();
  return lines.slice(-count);
}

/** The start of the kernel's report of a bug. */
const KERNEL_REPORT = /-+\[ cut here \]-+|\bBUG: |\bOops: |\bgeneral protection fault\b/;

/**
 * What a kernel's console says about its end: up to `count` lines from the first report of trouble on, or the last
 * `count` lines if there is none. The first report is usually the cause of the others.
 */
export function troubleLines(console: string, count: number): readonly string[] {
  const lines = lastLines(console, Number.POSITIVE_INFINITY);
  const first = lines.findIndex((line) => KERNEL_REPORT.test(line));
  return first < 0 ? lines.slice(-count) : lines.slice(first, first + count);
}

/**
 * Passes `source` on to `sink` until the trailer, which says that it is complete, or until it ends, because the guest
 * died. Waits for a slow sink, and so makes the guest wait.
 */
export async function forwardOutput(
  source: AsyncIterable<Buffer>,
  sink: Writable,
  trailer: Buffer,
  tail: Tail,
): Promise<void> {
  let pending: Buffer = Buffer.alloc(0);
  const pass = async (bytes: Buffer): Promise<void> => {
    tail.add(bytes);
    await write(sink, bytes);
  };
  for await (const chunk of source) {
    const bytes = Buffer.concat([pending, chunk]);
    const end = bytes.indexOf(trailer);
    if (end >= 0) return pass(bytes.subarray(0, end));
    const held = overlap(bytes, trailer);
    await pass(bytes.subarray(0, bytes.length - held));
    pending = bytes.subarray(bytes.length - held);
  }
  return pass(pending);
}

/** The number of last bytes that may be the start of an incomplete trailer. */
function overlap(bytes: Buffer, trailer: Buffer): number {
  for (let length = Math.min(bytes.length, trailer.length - 1); length > 0; length -= 1) {
    if (bytes.subarray(-length).equals(trailer.subarray(0, length))) return length;
  }
  return 0;
}

async function write(sink: Writable, bytes: Buffer): Promise<void> {
  if (bytes.length === 0) return;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  sink.write(bytes, (error) => (error ? reject(error) : resolve()));
  return promise;
}
