/** A device for "tsbuse run" with one method that misbehaves. */

/** Ways not to end, and ways to end with an error or at the next SIGHUP. */
export type Way = "promise" | "loop" | "wait" | "error" | "hangup";

/** A module that takes `method=`, `how=` (a Way), and `log=`, a file that gets a line for each call of the method. */
export const STUBBORN = `
import { appendFileSync } from "node:fs";
const ways = {
  promise: () => new Promise(() => undefined),
  loop: () => { for (;;); },
  wait: () => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0),
  hangup: () => new Promise((resolve) => process.once("SIGHUP", () => setImmediate(resolve))),
  error: () => { throw new Error("a bad day"); },
};
export default ({ method, how, log }) => {
  const bytes = new Uint8Array(2 ** 24);
  return {
    size: bytes.length,
    read: (target, offset) => target.set(bytes.subarray(offset, offset + target.length)) && undefined,
    write: (source, offset) => bytes.set(source, offset) && undefined,
    flush: () => undefined,
    [method]: () => {
      appendFileSync(log, method + "\\n");
      return ways[how]();
    },
  };
};
`;
