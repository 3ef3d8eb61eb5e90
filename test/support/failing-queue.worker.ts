/** Replaces src/cli/queue.worker.ts: a RAM disk behind a gate that throws after a number of writes. */
import { openShared } from "../../devices/ramdisk.ts";
import { Dispatch } from "../../src/dispatch.ts";
import { serveQueueThread } from "../../src/target/queue-thread.ts";

declare const self: Worker;

const WRITES = 1000;
let writes = 0;

const gate = Dispatch.prototype;
const { checkWrite } = gate;
gate.checkWrite = function failing(this: Dispatch, ...range: Parameters<typeof checkWrite>): number {
  writes += 1;
  if (writes > WRITES) throw new Error("the guard has failed");
  return checkWrite.apply(this, range);
};

serveQueueThread(self, ({ state }, log) => openShared(state, log));
