/** Goal: work is interrupted after some milliseconds, sooner if its pieces take long, and the clock is seldom read. */
import { afterAll, afterEach, expect, spyOn, test } from "bun:test";
import { TimeSlice } from "../../../src/serving/time-slice.ts";

let nowMs = 0;
const clock = spyOn(performance, "now").mockImplementation(() => nowMs);

afterAll(() => {
  clock.mockRestore();
});

afterEach(() => {
  nowMs = 0;
  clock.mockClear();
});

/** How many pieces of work are done in a slice, each taking as long as `pieceMs` says for its number. */
function work(slice: TimeSlice, pieceMs: (piece: number) => number, most = 1_000_000): number {
  let done = 0;
  slice.begin();
  while (!slice.isOver && done < most) {
    nowMs += pieceMs(done);
    done += 1;
    slice.worked();
  }
  return done;
}

test.each([
  [2, 3],
  [5, 1],
  [60_000, 1],
  [0.6, 9],
])("pieces of %p ms are over after %d", (pieceMs, pieces) => {
  const slice = new TimeSlice();
  expect(work(slice, () => pieceMs)).toBe(pieces);
  // And again from the beginning.
  expect(work(slice, () => pieceMs)).toBe(pieces);
});

test("short pieces are done for 5 ms, and the clock is asked for one in sixteen", () => {
  const pieces = work(new TimeSlice(), () => 0.001);
  expect(pieces).toBeGreaterThanOrEqual(5000);
  expect(pieces).toBeLessThan(5000 + 16);
  expect(clock.mock.calls.length).toBeLessThan(pieces / 16 + 8);
});

test("a long piece among short ones ends it before sixteen more", () => {
  for (let long = 0; long < 100; long += 1) {
    const pieces = work(new TimeSlice(), (piece) => (piece === long ? 10 : 0.001));
    expect(pieces).toBeGreaterThan(long);
    expect(pieces).toBeLessThanOrEqual(long + 16);
  }
});

test("with less to do it is not over", () => {
  const slice = new TimeSlice();
  expect(work(slice, () => 0.001, 100)).toBe(100);
  expect(slice.isOver).toBe(false);
});
