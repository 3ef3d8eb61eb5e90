/** A queue as a thread of its own has it: see queues/thread.ts. */
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

/** How long a thread may take to be gone that has said that it ends, in milliseconds. */
const THREAD_LIMIT_MS = 5000;

export interface UblkOnThread {
  readonly driver: "ublk";
  readonly place: QueuePlace;
}

/** What a queue leaves that was told to leave: its ring, to be closed when its thread is no more. */
export interface LeftRing {
  readonly fd: number;
  /** `/proc/PID/task/TID`; undefined where there is no /proc. */
  readonly thread: string | undefined;
}

/** The file of its requests is /dev/ublkcN. Told to leave by an eventfd, it has no use for a message. */
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

/** That which calls it, as {@link LeftRing} has it. A server of the initramfs has the root of that still. */
export function ownThread(): string | undefined {
  const thread = linkTarget("/proc/thread-self");
  return thread === undefined ? undefined : `/proc/${thread}`;
}

export function isThere(thread: string | undefined): boolean {
  return thread !== undefined && existsSync(inCurrentRoot(thread));
}

/** To be called when the thread has been told to end. */
export async function closeLeftRing({ fd, thread }: LeftRing): Promise<void> {
  const deadline = performance.now() + THREAD_LIMIT_MS;
  while (isThere(thread) && performance.now() < deadline) await Bun.sleep(1);
  close(fd);
}
