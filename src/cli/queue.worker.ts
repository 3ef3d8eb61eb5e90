/** The thread of a queue of a node, with the devices that any thread can reach. */
import { openShared as openLoop } from "../../devices/loop.ts";
import { openShared as openRamdisk } from "../../devices/ramdisk.ts";
import { serveQueueThread } from "../target/queue-thread.ts";

declare const self: Worker;

const OPEN = { loop: openLoop, ramdisk: openRamdisk } as const;

serveQueueThread(self, ({ kind, state }, log) => OPEN[kind](state, log));
