/** The worker that asks whether a node is in use, while another thread serves it: see claim.ts. */
import { close } from "../libc/file.ts";
import { onRequest } from "../serving/workers.ts";
import { errno } from "../uapi/errno.ts";
import { claim } from "./claim.ts";

declare const self: Worker;

export interface ClaimRequest {
  readonly path: string;
}

/** First that the worker listens; then whether the node is in use. */
export interface ClaimReply {
  readonly inUse: boolean;
}

onRequest<ClaimRequest>(self, ({ path }) => {
  const fd = claim(path);
  if (fd >= 0) close(fd);
  self.postMessage({ inUse: fd === -errno.EBUSY } satisfies ClaimReply);
});
self.postMessage({ inUse: false } satisfies ClaimReply);
