/**
 * The worker that holds NBD_DO_IT. The kernel runs the connection until the ioctl returns, so a thread must stay in it.
 * Every signal that reaches that thread ends the device, so it blocks them all.
 */
import { ioctl } from "../../libc/ioctl.ts";
import { withSignalsBlocked } from "../../libc/process.ts";
import { onRequest } from "../../serving/workers.ts";
import { NBD_DO_IT } from "../../uapi/nbd.ts";

declare const self: Worker;

/** What the main thread sends: the node's file descriptor, already set up. */
export interface DoItRequest {
  readonly fd: number;
}

/** What comes back: that the worker listens, and then what the ioctl returned, 0 or -errno. */
export type DoItReply =
  | { readonly kind: "listening" }
  | { readonly kind: "returned"; readonly result: number };

onRequest<DoItRequest>(self, ({ fd }) => {
  const result = withSignalsBlocked(() => ioctl(fd, NBD_DO_IT));
  self.postMessage({ kind: "returned", result } satisfies DoItReply);
});
self.postMessage({ kind: "listening" } satisfies DoItReply);
