/** The changes in a record, and when each became durable. Times are positions in the record. */
import { kind, SECTOR } from "../record/format.ts";
import { markText, type RecordedEvent, type RecordFile } from "../record/reader.ts";

export interface Change {
  readonly kind: "write" | "zero" | "trim";
  /** Sectors; `end` is not included. */
  readonly first: number;
  readonly end: number;
  readonly fua: boolean;
  /** Where its bytes begin in the record; 0 for zeroes. A trimmed range counts as zeroes too. */
  readonly payload: number;
  /** The number of its first sector among all recorded ones, from 1; the next sector has the next number. 0: zeroes. */
  readonly value: number;
  readonly start: number;
  /** When it was answered; Infinity for never. */
  readonly done: number;
  /** When it became durable: from then on the disk certainly has it. Infinity for never, as when it failed. */
  readonly durable: number;
}

export interface Mark {
  readonly time: number;
  readonly text: string;
}

export interface History {
  /** In the order in which they began. */
  readonly changes: readonly Change[];
  readonly marks: readonly Mark[];
  /** The number of events. */
  readonly end: number;
}

interface Answer {
  readonly time: number;
  readonly failed: boolean;
}

const NAMES = { [kind.write]: "write", [kind.zero]: "zero", [kind.trim]: "trim" } as const;

export function historyOf(record: RecordFile): History {
  const { events, writeThrough } = record;
  const answers = answersOf(events);
  const durableFrom = flushCover(events, answers);
  let values = 1;
  const changes = events.flatMap((event, start): Change[] => {
    if (event.kind !== kind.write && event.kind !== kind.zero && event.kind !== kind.trim) return [];
    const { time: done, failed } = answers.get(start) ?? { time: Infinity, failed: false };
    const isDurableWhenDone = event.fua || writeThrough;
    const isWrite = event.kind === kind.write;
    const value = isWrite ? values : 0;
    if (isWrite) values += event.length / SECTOR;
    return [
      {
        kind: NAMES[event.kind],
        first: event.offset / SECTOR,
        end: (event.offset + event.length) / SECTOR,
        fua: event.fua,
        payload: isWrite ? event.at : 0,
        value,
        start,
        done,
        durable: failed ? Infinity : isDurableWhenDone ? done : durableFrom(done),
      },
    ];
  });
  const marks = events.flatMap((event, time) =>
    event.kind === kind.mark ? [{ time, text: markText(record, event) }] : [],
  );
  return { changes: changes.filter(({ first, end }) => first < end), marks, end: events.length };
}

/** The answers to requests, by the time at which the request began. */
function answersOf(events: readonly RecordedEvent[]): ReadonlyMap<number, Answer> {
  const begun = new Map<number, number>();
  const answers = new Map<number, Answer>();
  for (const [time, { kind: what, request, failed }] of events.entries()) {
    if (what === kind.mark) continue;
    if (what !== kind.done) {
      begun.set(request, time);
      continue;
    }
    const start = begun.get(request);
    if (start !== undefined) answers.set(start, { time, failed });
    begun.delete(request);
  }
  return answers;
}

/** Returns when a change answered at a given time is durable: a flush covers what was answered before it began. */
function flushCover(
  events: readonly RecordedEvent[],
  answers: ReadonlyMap<number, Answer>,
): (done: number) => number {
  // For each time, the earliest completion of a flush that began then or later.
  const earliest = new Float64Array(events.length + 1).fill(Infinity);
  for (let time = events.length - 1; time >= 0; time -= 1) {
    const answer = events[time]?.kind === kind.flush ? answers.get(time) : undefined;
    const done = answer === undefined || answer.failed ? Infinity : answer.time;
    earliest[time] = Math.min(done, earliest[time + 1] ?? Infinity);
  }
  return (done) => (Number.isFinite(done) ? (earliest[done + 1] ?? Infinity) : Infinity);
}
