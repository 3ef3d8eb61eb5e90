/** Writes a number of entries to a ring as fast as it can: entry N concerns sector N, and all its bytes are N % 251. */
import { ptr } from "bun:ffi";
import { TraceWriter } from "../../src/queues/trace-ring.ts";
import { NBD_CMD_WRITE } from "../../src/uapi/nbd.ts";

declare const self: Worker;

const BYTES = 64;

type Order = MessageEvent<{ readonly memory: SharedArrayBuffer; readonly count: number }>;

self.addEventListener("message", ({ data: { memory, count } }: Order) => {
  const writer = new TraceWriter(memory);
  const bytes = new Uint8Array(new ArrayBuffer(BYTES));
  for (let number = 0; number < count; number += 1) {
    bytes.fill(number % 251);
    const times = { arrived: number, begun: number + 1, settled: number + 2 };
    writer.put(NBD_CMD_WRITE, 0, number * 512, BYTES, number % 3, times, ptr(bytes));
  }
  postMessage("done");
});
