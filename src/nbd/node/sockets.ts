/** The sockets between the kernel and a server of a node. */
import { close } from "../../libc/file.ts";
import { setSendBuffer, streamSocketPair } from "../../libc/socket.ts";

/** The buffer of either end, in bytes: enough that neither waits for the other in a burst. */
const SOCKET_BUFFER_BYTES = 4 * 2 ** 20;

/** The same for swap. The driver takes it from the reserve for reclaiming memory: more would exhaust that. */
export const SWAP_SOCKET_BUFFER_BYTES = 128 * 1024;

/**
 * Makes socket pairs and passes the kernel's ends to `use`. Then closes our references to these, so that the streams
 * end with this process.
 * @returns what `use` returns, and our ends.
 * @throws ErrnoError
 */
export function withKernelSockets<Link>(
  count: number,
  use: (kernels: readonly number[]) => Link,
  bufferBytes = SOCKET_BUFFER_BYTES,
): { readonly link: Link; readonly sockets: readonly number[] } {
  const sockets: number[] = [];
  const kernels: number[] = [];
  try {
    for (let index = 0; index < count; index += 1) {
      const [ours, theirs] = streamSocketPair();
      sockets.push(ours);
      kernels.push(theirs);
      setSendBuffer(ours, bufferBytes);
      setSendBuffer(theirs, bufferBytes);
    }
    return { link: use(kernels), sockets };
  } catch (error) {
    for (const fd of sockets) close(fd);
    throw error;
  } finally {
    for (const fd of kernels) close(fd);
  }
}
