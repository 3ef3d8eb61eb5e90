/** The worker that writes back what the system holds for a node, while another thread serves it. */
import { onRequest } from "../serving/workers.ts";
import { writeBack } from "./write-back.ts";

declare const self: Worker;

/** `nbd0`, `ublkb0`. */
export interface WriteBackRequest {
  readonly name: string;
}

/** First that the worker listens; then 0, or the first -errno. */
export interface WriteBackReply {
  readonly result: number;
}

onRequest<WriteBackRequest>(self, ({ name }) => {
  void writeBack(name).then((result) => self.postMessage({ result } satisfies WriteBackReply));
});
self.postMessage({ result: 0 } satisfies WriteBackReply);
