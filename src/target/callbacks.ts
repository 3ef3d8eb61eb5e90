/** Callbacks of the caller: if one throws, that must not end what it reports on. */
import { messageOf } from "../errors.ts";
import type { Trace } from "../transport.ts";

type Log = (line: string) => void;

/** A log that never throws. Its first failure is a warning of the process. */
export function shieldedLog(log: Log | undefined): Log | undefined {
  if (log === undefined) return undefined;
  let hasFailed = false;
  return (line) => {
    try {
      log(line);
    } catch (error) {
      if (!hasFailed)
        process.emitWarning(`the function "log" of a device in use failed: ${messageOf(error)}`);
      hasFailed = true;
    }
  };
}

/** A trace that never throws. Its first failure is a line in the log. */
export function shieldedTrace(trace: Trace | undefined, log: Log | undefined): Trace | undefined {
  if (trace === undefined) return undefined;
  let hasFailed = false;
  return (command, flags, offset, length, error, queued, served, settledMs) => {
    try {
      trace(command, flags, offset, length, error, queued, served, settledMs);
    } catch (thrown) {
      if (!hasFailed) log?.(`the function "trace" failed: ${messageOf(thrown)}`);
      hasFailed = true;
    }
  };
}
