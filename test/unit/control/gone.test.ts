/** Goal: a client that requests something lasting, and is gone when that is carried out, leaves nothing behind. */
import { expect, test } from "bun:test";
import { answerAbout, type Subject } from "../../../src/control/commands.ts";
import type { Asker } from "../../../src/control/connection.ts";
import { makeTraceRing, TraceWriter } from "../../../src/queues/trace-ring.ts";

function subject() {
  const ring = makeTraceRing();
  const steps: string[] = [];
  const handover = {
    fds: {},
    letGo: () => (steps.push("let go"), Promise.resolve("stays")),
    takeBack: () => void steps.push("taken back"),
  };
  const transport = { path: "/dev/nbd4095", traceRings: [ring], handover };
  const dispatch = { size: 4096, capabilities: { flush: true } };
  // The other members of a subject are not used.
  const about = { transport, dispatch, version: "0", runsCommand: false } as unknown as Subject;
  return { answer: answerAbout(about), writer: new TraceWriter(ring), steps };
}

function asker() {
  const gone = new AbortController();
  const asks: Asker = { gone: gone.signal, stay: () => undefined };
  return { gone, asks };
}

test.each([false, true])("a trace ends with whoever has asked for it; gone before it began: %p", (before) => {
  const { answer, writer } = subject();
  const { gone, asks } = asker();
  const begin = (): unknown => answer({ command: "trace-begin", data: true }, asks);
  if (before) {
    gone.abort();
    expect(begin).toThrow("has ended");
  } else {
    expect(begin()).toMatchObject({ size: 4096 });
    expect([writer.isRead, writer.wantsData]).toEqual([true, true]);
    gone.abort();
  }
  expect([writer.isRead, writer.wantsData]).toEqual([false, false]);
});

test.each([
  ["before it is let go of", true, []],
  ["after", false, ["let go", "taken back"]],
] as const)("a device is not left to whoever wanted it and has gone: %s", async (_, before, expected) => {
  const { answer, steps } = subject();
  const { gone, asks } = asker();
  await answer({ command: "handover-begin", protocol: 1 }, asks);
  if (before) gone.abort();
  const released = Promise.resolve(answer({ command: "handover-release" }, asks)).catch(
    (error: Error) => error.message,
  );
  if (before) expect<unknown>(await released).toBe("/dev/nbd4095 was taken back");
  else expect<unknown>(await released).toEqual({ how: "stays" });
  gone.abort();
  expect<readonly string[]>(steps).toEqual(expected);
});
