/** In the place of src/cli/queue.worker.ts: a RAM disk that throws where nobody expects it, after so many writes. */
import { openShared } from "../../devices/ramdisk.ts";
import type { BlockDevice } from "../../src/device.ts";
import { serveQueueThread } from "../../src/ublk/queue/thread.ts";

declare const self: Worker;

const WRITES = 1000;

serveQueueThread(self, ({ state }, log): BlockDevice => {
  const disk = openShared(state, log);
  let writes = 0;
  const admit = (): number => {
    writes += 1;
    if (writes > WRITES) throw new Error("the guard has failed");
    return 0;
  };
  return {
    size: disk.size,
    memory: { address: disk.memory.address, admit },
    read: (target, offset) => disk.read(target, offset),
    write: (source, offset) => disk.write(source, offset),
    close: () => disk.close(),
  };
});
