/** A queue on a thread of its own: see queues/thread.ts. */
import { existsSync } from "node:fs";
import type { Dispatch } from "../../dispatch.ts";
import { close } from "../../libc/file.ts";
import { inCurrentRoot } from "../../libc/root.ts";
import { linkTarget } from "../../nodes/openers.ts";
import type { QueueNews, QueueServing, ThreadQueue } from "../../queues/thread.ts";
import { HaltPoll } from "../../serving/halt-poll.ts";
import type { QueuePlace } from "./place.ts";
import { Queue } from "./queue.ts";
import { QueueRunner } from "./runner.ts";

/** How long a thread that has announced its end may take to be gone, in milliseconds. */
const THREAD_LIMIT_MS = 5000;

export interface UblkOnThread {
  readonly driver: "ublk";
  readonly place: QueuePlace;
}

/** The ring of a queue that was told to leave: close it once the thread of the queue is gone. */
export interface LeftRing {
  readonly fd: number;
  /** `/proc/PID/task/TID`; undefined without /proc. */
  readonly thread: string | undefined;
}

/** Its file is /dev/ublkcN. An eventfd tells it to leave, so it needs no message for that. */
export function ublkOnThread(
  { place }: UblkOnThread,
  dispatch: Dispatch,
  { requestTimeoutMs, busyPollMs, counters }: QueueServing,
  news: QueueNews,
): ThreadQueue<LeftRing | undefined> {
  const { log } = news;
  const queue = new Queue(place, dispatch, counters, { requestTimeoutMs, log, failed: news.refusing });
  let isClosed = false;
  const closeOnce = (): number => {
    if (isClosed) return -1;
    isClosed = true;
    return queue.close();
  };
  return {
    handOver: (fd) => queue.handOver(fd),
    serve: async () => {
      await new QueueRunner(queue, new HaltPoll(busyPollMs)).runAlone();
      const fd = closeOnce();
      return fd < 0 ? undefined : { fd, thread: ownThread() };
    },
    close: closeOnce,
  };
}

/** The calling thread, for {@link LeftRing}. A server from the initramfs still has the root of the initramfs. */
export function ownThread(): string | undefined {
  const thread = linkTarget("/proc/thread-self");
  return thread === undefined ? undefined : `/proc/${thread}`;
}

export function isThere(thread: string | undefined): boolean {
  return thread !== undefined && existsSync(inCurrentRoot(thread));
}

/** Call it once the thread has been told to end. */
export async function closeLeftRing({ fd, thread }: LeftRing): Promise<void> {
  const deadline = performance.now() + THREAD_LIMIT_MS;
  while (isThere(thread) && performance.now() < deadline) await Bun.sleep(1);
  close(fd);
}
