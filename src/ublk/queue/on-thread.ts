/** A queue as a thread of its own has it: see queues/thread.ts. */
import type { Dispatch } from "../../dispatch.ts";
import type { QueueNews, QueueServing, ThreadQueue } from "../../queues/thread.ts";
import { HaltPoll } from "../../serving/halt-poll.ts";
import type { QueuePlace } from "./place.ts";
import { Queue } from "./queue.ts";
import { QueueRunner } from "./runner.ts";

export interface UblkOnThread {
  readonly driver: "ublk";
  readonly place: QueuePlace;
}

/** The file of its requests is /dev/ublkcN. It is told to leave by an eventfd: the message says that it may go. */
export function ublkOnThread(
  { place }: UblkOnThread,
  dispatch: Dispatch,
  { requestTimeoutMs, busyPollMs, counters }: QueueServing,
  news: QueueNews,
): ThreadQueue<void> {
  const { log } = news;
  const queue = new Queue(place, dispatch, counters, { requestTimeoutMs, log, failed: news.refusing });
  return {
    handOver: (fd) => queue.handOver(fd),
    serve: () => new QueueRunner(queue, new HaltPoll(busyPollMs)).runAlone(),
    leave: () => {
      if (queue.hasLeft) queue.close();
    },
    // One that has left keeps all until it is told to leave: the driver looks for the next server from then on.
    close: () => {
      if (!queue.hasLeft) queue.close();
    },
  };
}
