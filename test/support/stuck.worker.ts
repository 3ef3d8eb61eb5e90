/** Replaces src/nodes/write-back.worker.ts: a thread that stays in a system call until a pipe has data. */
import { readSync } from "node:fs";
import { withSignalsBlocked } from "../../src/libc/process.ts";
import { onRequest } from "../../src/serving/workers.ts";

declare const self: Worker;

onRequest<{ readonly fd: number }>(self, ({ fd }) => {
  self.postMessage("stuck");
  withSignalsBlocked(() => readSync(fd, new Uint8Array(1)));
});
self.postMessage("listening");
