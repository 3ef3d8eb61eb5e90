/** Where a trace goes. */
import { errorText } from "../../libc/errno.ts";
import { open } from "../../libc/file.ts";
import { PromptWriter } from "../../libc/prompt-writer.ts";
import { RecordWriter } from "../../record/writer.ts";
import { UserError } from "../../errors.ts";
import { HEADING, jsonLine, textLine } from "../../trace/lines.ts";
import { TraceRecord } from "../../trace/record.ts";
import type { Traced } from "../../trace/request.ts";
import type { TraceSession } from "../../trace/session.ts";
import { errno } from "../../uapi/errno.ts";
import { O_CREAT, O_NONBLOCK, O_RDWR } from "../../uapi/fcntl.ts";
import { log, printResult } from "../log.ts";

const STDOUT = 1;
/** How often to try a reader that is behind, and for how long at the end, in milliseconds. */
const AGAIN_MS = 10;
const END_LIMIT_MS = 1000;

export interface TraceOutput {
  /** Whether the reader is gone. */
  readonly isOver: boolean;
  /** Done when it is written. Meanwhile the device's process buffers its answers, as long as they fit. */
  take(traced: Traced): Promise<void>;
  /** Ends the output, and reports how many requests it contains. Returns the exit status. */
  finish(traced: number): number;
  close(): void;
}

/** The message about missing requests. */
export function lostLine(lost: number): string {
  return `${lost} ${lost === 1 ? "request was" : "requests were"} not traced: the reader is too slow`;
}

/** Lines on stdout, for as long as there is a reader. @param stop then a reader that is behind gets a moment. */
export function traceText(isJson: boolean, stop: AbortSignal): TraceOutput {
  const writer = new PromptWriter(STDOUT);
  let failure = 0;
  let isBehind = false;
  const write = async (text: string): Promise<void> => {
    let bytes: Uint8Array = Buffer.from(text);
    let limit = Infinity;
    while (bytes.length > 0 && failure === 0) {
      const written = writer.write(bytes);
      if (written >= 0) bytes = bytes.subarray(written);
      else if (written !== -errno.EAGAIN && written !== -errno.EINTR) failure = -written;
      else if (performance.now() > limit) return void (isBehind = true);
      else await Bun.sleep(AGAIN_MS);
      if (stop.aborted) limit = Math.min(limit, performance.now() + END_LIMIT_MS);
    }
  };
  let isFirst = !isJson;
  return {
    get isOver() {
      return failure !== 0;
    },
    async take({ requests, lost }) {
      const lines = requests.map(isJson ? jsonLine : textLine);
      if (lost > 0) lines.unshift(isJson ? JSON.stringify({ lost }) : lostLine(lost));
      if (isFirst) lines.unshift(HEADING);
      isFirst = false;
      if (lines.length > 0) await write(`${lines.join("\n")}\n`);
    },
    finish() {
      if (isBehind) log.warn("what was traced last is missing: nobody reads it");
      // The reader has all that it wants: "head", for example.
      if (failure === 0 || failure === errno.EPIPE) return 0;
      throw new UserError(
        `the trace cannot be printed (${errorText(failure)}): make room, or use --write FILE`,
      );
    },
    close: () => writer.close(),
  };
}

/** Writes a record. @throws UserError if it cannot be created. */
export function traceFile(
  path: string,
  { size, writeThrough }: TraceSession,
  wantsData: boolean,
): TraceOutput {
  const fd = open(path, O_RDWR | O_CREAT | O_NONBLOCK, 0o600);
  if (fd < 0) throw new UserError(`${path} cannot be made (${errorText(-fd)}): choose another place`);
  let failure: string | undefined;
  const writer = new RecordWriter(
    fd,
    path,
    { size, writeThrough, isTrace: true },
    { limit: Infinity, report: (line) => void (failure = line) },
  );
  const record = new TraceRecord(writer, size, wantsData);
  return {
    get isOver() {
      return failure !== undefined;
    },
    take(traced) {
      record.add(traced);
      return Promise.resolve();
    },
    finish(traced) {
      if (failure !== undefined) throw new UserError(failure);
      if (traced > 0) return printResult(`${path}: ${traced} ${traced === 1 ? "request" : "requests"}`);
      log.warn(`${path} is empty: nothing was asked of the device`);
      return 0;
    },
    close: () => writer.close(),
  };
}
