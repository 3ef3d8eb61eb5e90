/**
 * Marks every thread of this process as one that block I/O depends on. The runtime starts threads of its own, which
 * compile and collect garbage, before our first line runs, and a thread can mark only itself. If one of them waited for
 * memory, and thus for a write to the very device that we serve, the serving thread would wait for it. The mark is
 * inherited and survives execve(2), so the program executes itself again.
 */
import { errorText } from "../../libc/errno.ts";
import { isIoFlusher, setIoFlusher, startAnew } from "../../libc/process.ts";
import { log } from "../log.ts";

/**
 * Does not return if the program executes itself again, so call it before anything is opened. Does nothing if the mark
 * is already set, or must not be set; the serving code then logs that.
 * @param startsDaemon whether a child is started in any case, and inherits the mark.
 */
export function becomeIoFlusher(startsDaemon: boolean): void {
  if (isIoFlusher() !== 0 || setIoFlusher(true) < 0 || startsDaemon) return;
  const failure = startAnew();
  log.warn(`memory may be reclaimed through the device itself: ${process.execPath}: ${errorText(-failure)}`);
}
