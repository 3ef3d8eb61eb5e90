/** Blocks all signals for a while, and reports which are blocked before, meanwhile and after: proc_pid_status(5). */
import { readFileSync } from "node:fs";
import { withSignalsBlocked } from "../../src/libc/process.ts";

declare const self: Worker;

function blockedSignals(): string {
  return /^SigBlk:\s*(\w+)$/m.exec(readFileSync("/proc/thread-self/status", "utf8"))?.[1] ?? "";
}

const before = blockedSignals();
const within = withSignalsBlocked(blockedSignals);
self.postMessage({ before, within, after: blockedSignals() });
