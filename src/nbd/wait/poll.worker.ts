/** The thread that waits in poll(2) for another one if io_uring is unavailable. */
import { addTo, drain } from "../../libc/eventfd.ts";
import { PollTable } from "../../libc/poll.ts";
import { onRequest } from "../../serving/workers.ts";
import { POLLIN } from "../../uapi/poll.ts";
import { COMMAND_WORDS, NumberQueue } from "./number-queue.ts";

declare const self: Worker;

/** The queues for commands and news. A command with a key of -1 ends the thread. */
export interface PollRequest {
  readonly commands: Int32Array<SharedArrayBuffer>;
  readonly news: Int32Array<SharedArrayBuffer>;
  /** Eventfds: there are commands; there is news. */
  readonly commandFd: number;
  readonly newsFd: number;
}

export interface PollReply {
  readonly kind: "listening" | "ended";
}

/** What is watched: file descriptor and POLL flags by key. */
type Watched = Map<number, readonly [number, number]>;

onRequest<PollRequest>(self, (request) => {
  watch(request);
  self.postMessage({ kind: "ended" } satisfies PollReply);
});
self.postMessage({ kind: "listening" } satisfies PollReply);

function watch({ commands, news, commandFd, newsFd }: PollRequest): void {
  const watched: Watched = new Map();
  const orders = new NumberQueue(commands);
  const found = new NumberQueue(news);
  for (;;) {
    const keys = [...watched.keys()];
    const table = new PollTable(1 + keys.length);
    table.push(commandFd, POLLIN);
    for (const [fd, events] of watched.values()) table.push(fd, events);
    if (table.wait(-1) < 0) continue;
    let hasNews = false;
    for (const [index, key] of keys.entries()) {
      if (table.found(1 + index) === 0) continue;
      watched.delete(key);
      found.push(key);
      hasNews = true;
    }
    if (hasNews) addTo(newsFd);
    if (table.found(0) !== 0) drain(commandFd);
    if (!carryOut(orders, watched)) return;
  }
}

/** Returns false if the thread must end. */
function carryOut(orders: NumberQueue, watched: Watched): boolean {
  while (!orders.isEmpty) {
    const [key = 0, fd = 0, events = 0] = Array.from({ length: COMMAND_WORDS }, () => orders.shift());
    if (key < 0) return false;
    if (events < 0) watched.delete(key);
    else watched.set(key, [fd, events]);
  }
  return true;
}
