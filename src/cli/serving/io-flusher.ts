/**
 * The mark of a process that block I/O depends on, on every thread of it. The runtime has started threads of its own,
 * which compile and collect garbage, before our first line runs, and a thread can mark none but itself. One of them
 * that waits for memory, and so for a write to the very device that is served, is waited for by the thread that serves.
 * The mark is inherited and outlives execve(2), so that the program begins once more.
 */
import { errorText } from "../../libc/errno.ts";
import { isIoFlusher, setIoFlusher, startAnew } from "../../libc/process.ts";
import { log } from "../log.ts";

/**
 * Does not return if the program begins once more: to be called before anything is opened. Does nothing where the mark
 * is already set or may not be; who serves then says so.
 * @param startsDaemon a child is started in any case, and inherits the mark.
 */
export function becomeIoFlusher(startsDaemon: boolean): void {
  if (isIoFlusher() !== 0 || setIoFlusher(true) < 0 || startsDaemon) return;
  const failure = startAnew();
  log.warn(`memory may be reclaimed through the device itself: ${process.execPath}: ${errorText(-failure)}`);
}
