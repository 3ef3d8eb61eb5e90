/**
 * Reading what a device has answered, while it is in use. A tracer asks again and again. Whatever it does not fetch in
 * time is overwritten, and the next answer says how much was lost. The device never waits for a tracer, which costs the
 * memory of one answer.
 */
import { UserError } from "../errors.ts";
import { type TraceBatch, TraceReader } from "../queues/trace-ring.ts";
import type { Subject } from "./commands.ts";
import type { Asker, Message } from "./connection.ts";

/** The most data in one answer, for all queues together. A first entry may be larger. */
const ENTRIES_MAX = 4096;
const DATA_MAX = 4 * 2 ** 20;

interface Tracer {
  readonly readers: readonly TraceReader[];
  /** The queue whose data comes first in the next answer. */
  first: number;
}

/** Tracers, each by the signal that ends with its connection. */
const tracers = new WeakMap<AbortSignal, Tracer>();

/** Keeps what is answered from now on for the tracer that asks. `data`: with the bytes of writes. */
export function beginTrace(
  { transport, dispatch }: Subject,
  { data }: Message,
  { gone, stay }: Asker,
): Message {
  if (tracers.has(gone)) throw new Error("this connection traces already");
  // Nothing would end it any more.
  if (gone.aborted) throw new Error("a trace is over when its connection ends, and that has ended");
  const readers = transport.traceRings.map((ring) => new TraceReader(ring, data === true));
  tracers.set(gone, { readers, first: 0 });
  gone.addEventListener("abort", () => {
    for (const reader of readers) reader.close();
  });
  stay();
  return {
    path: transport.path,
    size: dispatch.size,
    writeThrough: !dispatch.capabilities.flush,
    now: performance.timeOrigin + performance.now(),
  };
}

/** What each queue has to tell, up to the limit of an answer. */
export function nextTraced(_: Subject, __: Message, { gone }: Asker): Message {
  const tracer = tracers.get(gone);
  if (tracer === undefined) throw new UserError("nothing is traced for this connection");
  const { readers, first } = tracer;
  const count = readers.length;
  const entries = Math.ceil(ENTRIES_MAX / count);
  const batches: TraceBatch[] = [];
  let room = DATA_MAX;
  for (let step = 0; step < count; step += 1) {
    const index = (first + step) % count;
    const batch = readers[index]?.take(entries, room, step === 0);
    if (batch === undefined) continue;
    batches[index] = batch;
    room = Math.max(0, room - batch.data.length);
  }
  tracer.first = (first + 1) % count;
  return { queues: batches.map(encode) };
}

function encode({ entries, data, lost, isMore, origin }: TraceBatch): Message {
  return {
    entries: Buffer.from(entries.buffer, entries.byteOffset, entries.byteLength).toString("base64"),
    data: Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("base64"),
    lost,
    isMore,
    origin,
  };
}
