/** What to repeat from a record: its requests, each with its time and how long it took then. */
import { UserError } from "../errors.ts";
import { type Kind, kind } from "../record/format.ts";
import type { RecordedEvent, RecordFile } from "../record/reader.ts";

/** The kinds of requests, by the names that output has for them. */
export const COMMANDS = {
  read: kind.read,
  write: kind.write,
  flush: kind.flush,
  trim: kind.trim,
  zero: kind.zero,
};
export type CommandName = keyof typeof COMMANDS;

export interface PlannedRequest {
  readonly command: CommandName;
  /** Bytes. */
  readonly offset: number;
  readonly length: number;
  readonly fua: boolean;
  /** When it came, in milliseconds after the first one. */
  readonly at: number;
  /** Until it was answered, in microseconds; NaN: it never was. */
  readonly took: number;
  readonly failed: boolean;
  /** The bytes of a write; undefined: they were not recorded. */
  readonly payload: Uint8Array | undefined;
}

const NANOSECONDS_MS = 1_000_000;
const NANOSECONDS_US = 1000;

const NAMES: ReadonlyMap<Kind, CommandName> = new Map(
  Object.entries(COMMANDS).map(([name, what]) => [what, name as CommandName]),
);

/** In the order in which they came. */
export function planOf(
  { bytes, events }: RecordFile,
  isWanted: (command: CommandName) => boolean,
): PlannedRequest[] {
  const answers = answersOf(events);
  const requests: PlannedRequest[] = [];
  let start: number | undefined;
  for (const [place, event] of events.entries()) {
    const command = NAMES.get(event.kind);
    if (command === undefined || !isWanted(command)) continue;
    start ??= event.time;
    const answer = answers.get(place);
    const hasBytes = command === "write" && event.payload === event.length;
    requests.push({
      command,
      offset: event.offset,
      length: event.length,
      fua: event.fua,
      at: (event.time - start) / NANOSECONDS_MS,
      took: answer === undefined ? Number.NaN : (answer.time - event.time) / NANOSECONDS_US,
      failed: answer?.failed === true,
      payload: hasBytes ? bytes.subarray(event.at, event.at + event.payload) : undefined,
    });
  }
  return requests;
}

/** The answers by the places of the requests that they are of. */
function answersOf(events: readonly RecordedEvent[]): ReadonlyMap<number, RecordedEvent> {
  const begun = new Map<number, number>();
  const answers = new Map<number, RecordedEvent>();
  for (const [place, event] of events.entries()) {
    if (event.kind === kind.done) {
      const request = begun.get(event.request);
      if (request !== undefined) answers.set(request, event);
      begun.delete(event.request);
    } else if (event.request !== 0) begun.set(event.request, place);
  }
  return answers;
}

/** The device on which to repeat requests. */
export interface Shape {
  /** What messages call it. */
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  readonly blockSize: number;
}

/** Before anything is asked of the target. @throws UserError when it has no room for a request. */
export function mustFit(requests: readonly PlannedRequest[], { name, size, blockSize }: Shape): void {
  const end = requests.reduce((most, { offset, length }) => Math.max(most, offset + length), 0);
  if (end > size)
    throw new UserError(
      `${name} has ${size} bytes, and the requests go up to ${end}: give a disk of that size or more`,
    );
  const uneven = requests.find(({ offset, length }) => offset % blockSize !== 0 || length % blockSize !== 0);
  if (uneven !== undefined)
    throw new UserError(
      `${name} has blocks of ${blockSize} bytes, and a ${uneven.command} is of ${uneven.length} at ${uneven.offset}: give a disk with smaller blocks`,
    );
}
