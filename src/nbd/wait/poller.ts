/**
 * Waiting for sockets beside the event loop, which is free meanwhile: whoever has news is told of by an eventfd that
 * wakes it. The kernel waits, by a poll on an io_uring; where that is not to be had, a thread in poll(2) does.
 */
import { ErrnoError } from "../../errors.ts";
import { RingPoller } from "./ring-poller.ts";
import { ThreadPoller } from "./thread-poller.ts";

export interface Poller {
  /**
   * Watches a file descriptor until it has news, once: {@link take} then brings its key.
   * @param key a number below 2^30; another one for each that is watched at the same time.
   * @param events POLL flags.
   */
  watch(key: number, fd: number, events: number): void;
  /** There is to be no more news of the key, or none that counts; the file descriptor may be closed afterwards. */
  forget(key: number): void;
  /** Hands over what was to be watched and forgotten. Returns false when not all was taken: call it again. */
  submit(): boolean;
  /** The key of somebody who has news; -1 when there are no more. @throws Error when nobody is told of any more. */
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
