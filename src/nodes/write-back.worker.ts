/** The worker that brings to a device what the system holds for its node, while another thread serves it. */
import { onRequest } from "../serving/workers.ts";
import { writeBack } from "./write-back.ts";

declare const self: Worker;

/** `nbd0`, `ublkb0`. */
export interface WriteBackRequest {
  readonly name: string;
}

/** That the worker listens; and 0, or the first -errno. */
export interface WriteBackReply {
  readonly result: number;
}

onRequest<WriteBackRequest>(self, ({ name }) => {
  void writeBack(name).then((result) => self.postMessage({ result } satisfies WriteBackReply));
});
self.postMessage({ result: 0 } satisfies WriteBackReply);
