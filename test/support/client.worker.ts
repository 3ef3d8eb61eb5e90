/** A peer on a thread of its own, whose socket blocks: it sends all it has, then reads the replies piece by piece. */
import { close } from "../../src/libc/file.ts";
import { negativeErrno, unwrap } from "../../src/libc/errno.ts";
import { libc } from "../../src/libc/library.ts";

declare const self: Worker;

export interface ClientTask {
  /** The socket; the worker closes it. */
  readonly fd: number;
  readonly requests: Uint8Array;
  /** How many bytes of replies are to come. */
  readonly replyBytes: number;
  /** How many bytes to take at a time: the fewer, the slower. */
  readonly pieceBytes: number;
  /** Sends the process a signal before each piece. */
  readonly signal: NodeJS.Signals | undefined;
}

self.addEventListener("message", (event: MessageEvent<ClientTask>) => {
  const { fd, requests, replyBytes, pieceBytes, signal } = event.data;
  let sent = 0;
  while (sent < requests.length) {
    const rest = requests.subarray(sent);
    sent += unwrap(negativeErrno(libc.sendto(fd, rest, rest.length, 0, null, 0)), "send");
  }
  const replies = new Uint8Array(new ArrayBuffer(replyBytes));
  let taken = 0;
  while (taken < replyBytes) {
    if (signal !== undefined) process.kill(process.pid, signal);
    const room = replies.subarray(taken, taken + pieceBytes);
    const got = unwrap(negativeErrno(libc.recv(fd, room, room.length, 0)), "recv");
    if (got === 0) break;
    taken += got;
  }
  close(fd);
  self.postMessage(replies.subarray(0, taken), [replies.buffer]);
});
