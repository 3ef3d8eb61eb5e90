/**
 * Waits for sockets beside the event loop, which is free meanwhile: an eventfd wakes it when there is news. The kernel
 * waits, by polls on an io_uring; without io_uring, a thread in poll(2) does.
 */
import { ErrnoError } from "../../errors.ts";
import { RingPoller } from "./ring-poller.ts";
import { ThreadPoller } from "./thread-poller.ts";

export interface Poller {
  /**
   * Watches a file descriptor until it has news, once: {@link take} then brings its key.
   * @param key a number below 2^30, different for everything that is watched at the same time.
   * @param events POLL flags.
   */
  watch(key: number, fd: number, events: number): void;
  /** Stops watching: later news of the key does not count, and the file descriptor may be closed. */
  forget(key: number): void;
  /** Submits what to watch and forget. Returns false if not everything was accepted: call it again. */
  submit(): boolean;
  /** A key with news; -1 if there are no more. @throws Error if the poller has failed. */
  take(): number;
  close(): Promise<void>;
}

/** @param onNews is called on the event loop, once for any number of news. */
export async function makePoller(onNews: () => void): Promise<Poller> {
  try {
    return new RingPoller(onNews);
  } catch (error) {
    if (!(error instanceof ErrnoError)) throw error;
    return ThreadPoller.start(onNews);
  }
}
