/** Goal: a tracer can take every answer, however many queues there are, and each queue gets its turn. */
import { ptr } from "bun:ffi";
import { expect, test } from "bun:test";
import { ANSWER_MAX } from "../../../src/control/client.ts";
import { answerAbout, type Subject } from "../../../src/control/commands.ts";
import type { Asker, Message } from "../../../src/control/connection.ts";
import { makeTraceRing, TraceWriter } from "../../../src/queues/trace-ring.ts";
import { decodeTraced } from "../../../src/trace/request.ts";
import { NBD_CMD_READ, NBD_CMD_WRITE } from "../../../src/uapi/nbd.ts";

const QUEUES = 24;
const READS = 4096;
const WRITES = 2;
const WRITE_BYTES = 2 ** 20;
const TIMES = { arrived: 1, begun: 2, settled: 3 };

test("all that two dozen busy queues have answered is told", async () => {
  const traceRings = Array.from({ length: QUEUES }, () => makeTraceRing());
  const transport = { path: "/dev/nbd4095", traceRings };
  const dispatch = { size: 2 ** 30, capabilities: { flush: true } };
  // The other members of a subject are not used.
  const answer = answerAbout({ transport, dispatch, version: "0" } as unknown as Subject);
  const asks: Asker = { gone: new AbortController().signal, stay: () => undefined };
  await answer({ command: "trace-begin", data: true }, asks);
  const payload = new Uint8Array(WRITE_BYTES);
  for (const [queue, ring] of traceRings.entries()) {
    const writer = new TraceWriter(ring);
    payload.fill(queue);
    for (let write = 0; write < WRITES; write += 1)
      writer.put(NBD_CMD_WRITE, 0, 0, WRITE_BYTES, 0, TIMES, ptr(payload));
    for (let read = 0; read < READS; read += 1) writer.put(NBD_CMD_READ, 0, 0, 512, 0, TIMES, 0);
  }
  const told = Array.from({ length: QUEUES }, () => 0);
  for (let isMore = true; isMore;) {
    const message: Message = await answer({ command: "trace-next" }, asks);
    expect(JSON.stringify(message).length).toBeLessThan(ANSWER_MAX);
    const traced = decodeTraced(message, 0);
    expect([traced.queues, traced.lost]).toEqual([QUEUES, 0]);
    for (const { queue, command, data } of traced.requests) {
      told[queue] = (told[queue] ?? 0) + 1;
      if (command === NBD_CMD_WRITE) expect([data?.length, data?.[0]]).toEqual([WRITE_BYTES, queue]);
    }
    isMore = traced.isMore;
  }
  expect(told).toEqual(told.map(() => READS + WRITES));
});
