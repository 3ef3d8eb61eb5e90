/**
 * Goal: the states tried are those that a disk may hold after a power failure, no more and no fewer. The model here
 * knows only the rule: any of the changes that had begun, including all durable ones, sector by sector and in any
 * order, except that a change that was answered before another began comes before it.
 */
import { afterAll, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { Contents } from "../../../src/crash/contents.ts";
import { historyOf } from "../../../src/crash/history.ts";
import { statesOf } from "../../../src/crash/states.ts";
import { kind, SECTOR } from "../../../src/record/format.ts";
import { readRecord } from "../../../src/record/reader.ts";
import { Random } from "../../../src/values/random.ts";
import { sectors, startRecord } from "../../support/recording.ts";
import { TemporaryDirectory } from "../../support/temporary.ts";

const SECTORS = 3;
const directory = new TemporaryDirectory();
const path = directory.join("record");
afterAll(() => directory[Symbol.dispose]());

/** One thing that happened. The index in the list is the time. */
type Event =
  | { what: "change"; first: number; end: number; value: number; fua: boolean }
  | { what: "flush" }
  | { what: "done"; of: number; failed: boolean }
  | { what: "mark"; text: string };

function anyEvents(random: Random): Event[] {
  const events: Event[] = [];
  const open = new Set<number>();
  let changes = 0;
  while (events.length < 14) {
    const time = events.length;
    const dice = random.below(10);
    if (dice < 4 && changes < 6) {
      const first = random.below(SECTORS);
      const end = first + 1 + random.below(SECTORS - first);
      // Some are zeroes.
      const value = random.oneIn(5) ? 0 : (changes += 1);
      events.push({ what: "change", first, end, value, fua: random.oneIn(5) });
      open.add(time);
    } else if (dice < 6) {
      events.push({ what: "flush" });
      open.add(time);
    } else if (dice < 9 && open.size > 0) {
      const of = random.pick([...open]);
      open.delete(of);
      events.push({ what: "done", of, failed: random.oneIn(8) });
    } else if (dice === 9) events.push({ what: "mark", text: `m${time}` });
  }
  return events;
}

function record(events: readonly Event[], writeThrough: boolean): void {
  const writer = startRecord(path, SECTORS * SECTOR, undefined, writeThrough);
  const numbers = new Map<number, number>();
  for (const [time, event] of events.entries()) {
    if (event.what === "mark") writer.mark(event.text);
    else if (event.what === "done") writer.end(numbers.get(event.of) ?? 0, event.failed);
    else if (event.what === "flush") numbers.set(time, writer.begin(kind.flush, 0, 0, false));
    else {
      const { first, end, value, fua } = event;
      const [offset, length] = [first * SECTOR, (end - first) * SECTOR];
      const bytes = value === 0 ? undefined : sectors(first, end - first, value);
      numbers.set(time, writer.begin(value === 0 ? kind.zero : kind.write, offset, length, fua, bytes));
    }
  }
  writer.close();
}

/** `1 0 2|mark`: the value in each sector, for each possible state. */
function model(events: readonly Event[], writeThrough: boolean): Set<string> {
  const answer = (of: number, cut: number) => {
    const time = events.findIndex((event, at) => at < cut && event.what === "done" && event.of === of);
    const event = events[time];
    return event?.what === "done" ? { time, ok: !event.failed } : undefined;
  };
  const isDurable = (of: number, cut: number): boolean => {
    const own = answer(of, cut);
    const event = events[of];
    if (own === undefined || !own.ok || event?.what !== "change") return false;
    if (event.fua || writeThrough) return true;
    return events.some((each, at) => each.what === "flush" && at > own.time && answer(at, cut)?.ok === true);
  };
  const states = new Set<string>();
  for (let cut = 0; cut <= events.length; cut += 1) {
    const mark = events.slice(0, cut).findLast((event) => event.what === "mark")?.text ?? "";
    let rows: number[][] = [[]];
    for (let sector = 0; sector < SECTORS; sector += 1) {
      const begun = [...events.keys()].filter((at) => {
        const event = events[at];
        return at < cut && event?.what === "change" && event.first <= sector && sector < event.end;
      });
      const values = new Set<number>();
      for (let bits = 0; bits < 2 ** begun.length; bits += 1) {
        const subset = begun.filter((_, index) => (bits & (1 << index)) !== 0);
        if (begun.some((at) => isDurable(at, cut) && !subset.includes(at))) continue;
        // The last one may be any that was not answered before another of them began.
        const last = subset.filter(
          (at) => !subset.some((other) => (answer(at, cut)?.time ?? Infinity) < other),
        );
        for (const at of last) {
          const event = events[at];
          if (event?.what === "change") values.add(event.value);
        }
        if (subset.length === 0) values.add(0);
      }
      rows = rows.flatMap((row) => [...values].map((value) => row.concat(value)));
    }
    for (const row of rows) states.add(`${row.join(" ")}|${mark}`);
  }
  return states;
}

/** The value in each sector of a state, made from its record. */
function explored(unit = 1): { found: Set<string>; count: number } {
  const file = readRecord(path);
  const history = historyOf(file);
  const contents = new Contents(file.bytes, history.changes, undefined);
  const found = new Set<string>();
  let count = 0;
  for (const { disk, difference, epoch } of statesOf(history, contents, {
    seed: 1,
    from: 0,
    unit,
    changed: () => undefined,
  })) {
    count += 1;
    const row = Array.from({ length: SECTORS }, (_, sector) => {
      const bytes = contents.read(sector, difference.get(sector) ?? disk.at(sector));
      expect(bytes.every((byte) => byte === bytes[0])).toBe(true);
      const byte = bytes[0] ?? 0;
      if (byte !== 0) expect(byte % 16).toBe(sector);
      return Math.floor(byte / 16);
    });
    found.add(`${row.join(" ")}|${epoch.mark ?? ""}`);
  }
  return { found, count };
}

test("the states of any record of a tiny disk are those of the model, each of them once", () => {
  for (let seed = 1; seed <= 200; seed += 1) {
    const events = anyEvents(new Random(seed));
    const writeThrough = seed % 7 === 0;
    record(events, writeThrough);
    const { found, count } = explored();
    const expected = model(events, writeThrough);
    const why = `seed ${seed}: ${JSON.stringify(events)}`;
    expect([...found].toSorted(), why).toEqual([...expected].toSorted());
    expect(count, why).toBe(found.size);
    rmSync(path);
  }
}, 60_000);

test("what the disk writes as a whole is there or not", () => {
  const event = { what: "change", first: 0, end: 3, value: 1, fua: false } as const;
  record([event], false);
  expect([...explored(2).found].toSorted()).toEqual(["0 0 0|", "0 0 1|", "1 1 0|", "1 1 1|"]);
  expect([...explored(8).found].toSorted()).toEqual(["0 0 0|", "1 1 1|"]);
});
