/** Replaces src/cli/queue.worker.ts: a queue that has paused when it is told `watch`, and reports that on `rest`. */
import { openShared } from "../../devices/ramdisk.ts";
import { serveThread } from "../../src/queues/thread.ts";

declare const self: Worker;

serveThread<unknown, undefined>(
  self,
  ({ state }, log) => openShared(state, log),
  (_place, _dispatch, _serving, news) => {
    let pausing: (() => void) | undefined;
    return {
      handOver: () => undefined,
      serve: () => new Promise(() => undefined),
      close: () => undefined,
      tell(word) {
        if (word === "pause") return new Promise<void>((resolve) => (pausing = resolve));
        if (word === "watch") pausing?.();
        if (word === "rest") news.log("rested");
        return undefined;
      },
    };
  },
);
