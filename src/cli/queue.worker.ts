/** The thread of a node's queue, with the devices that any thread can reach. */
import { openShared as openLoop } from "../../devices/loop.ts";
import { openShared as openRamdisk } from "../../devices/ramdisk.ts";
import type { BlockDevice, SharedDevice } from "../device.ts";
import { openShared as openCow } from "../layers/cow.ts";
import { serveQueueThread } from "../target/queue-thread.ts";

declare const self: Worker;

function open({ kind, state }: SharedDevice, log: (line: string) => void): BlockDevice {
  if (kind === "cow") return openCow(state, (base) => open(base, log));
  return kind === "loop" ? openLoop(state) : openRamdisk(state, log);
}

serveQueueThread(self, open);
