/** The sockets between the kernel and a server of a node. */
import { close } from "../../libc/file.ts";
import { setSendBuffer, streamSocketPair } from "../../libc/socket.ts";

/** What either end may have on its way, in bytes: enough that neither waits for the other in a burst. */
const SOCKET_BUFFER_BYTES = 4 * 2 ** 20;

/**
 * Makes a socket pair and hands the kernel's end to `use`. With our reference to that gone, the end of this process is
 * the end of the stream.
 * @returns what `use` does, and our end.
 * @throws ErrnoError
 */
export function withKernelSocket<Link>(use: (kernels: readonly number[]) => Link): {
  readonly link: Link;
  readonly sockets: readonly number[];
} {
  const [ours, kernels] = streamSocketPair();
  try {
    setSendBuffer(ours, SOCKET_BUFFER_BYTES);
    setSendBuffer(kernels, SOCKET_BUFFER_BYTES);
    return { link: use([kernels]), sockets: [ours] };
  } catch (error) {
    close(ours);
    throw error;
  } finally {
    close(kernels);
  }
}
