/** Goal: a replay repeats the recorded requests at their times, and reports their results. */
import { expect, test } from "bun:test";
import type { BlockDevice } from "../../../src/device.ts";
import { Dispatch } from "../../../src/dispatch.ts";
import { ErrnoError } from "../../../src/errors.ts";
import { BufferPool } from "../../../src/replay/buffers.ts";
import { mustFit, type PlannedRequest } from "../../../src/replay/plan.ts";
import { replay, type ReplayOptions, type ReplayResult } from "../../../src/replay/run.ts";
import { resultText } from "../../../src/replay/text.ts";
import { formatDuration } from "../../../src/values/duration.ts";

const SIZE = 2 ** 20;

function planned(more: Partial<PlannedRequest>): PlannedRequest {
  return {
    command: "read",
    offset: 0,
    length: 512,
    fua: false,
    at: 0,
    took: 100,
    failed: false,
    payload: undefined,
    ...more,
  };
}

/** A clock that only the device and the replay move, and a device that records its calls with their times. */
class Scene {
  time = 1000;
  readonly told: string[] = [];
  inFlightMax = 0;
  #inFlight = 0;
  /** What is due, and when. */
  readonly #timers: { readonly at: number; readonly fire: () => void }[] = [];

  readonly device: BlockDevice = {
    size: SIZE,
    fua: "native",
    read: (_, offset) => this.#take("read", offset),
    write: (source, offset, { fua }) => this.#take(`write${fua ? " fua" : ""} ${source[0]}`, offset),
    flush: () => this.#take("flush", 0),
    trim: (offset) => this.#take("trim", offset),
  };

  /** @param takes milliseconds; 0: it answers at once. */
  constructor(readonly takes: number) {}

  sleep(milliseconds: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#timers.push({ at: this.time + milliseconds, fire: resolve });
    setImmediate(() => this.#advance());
    return promise;
  }

  async replay(plan: readonly PlannedRequest[], more: Partial<ReplayOptions> = {}): Promise<ReplayResult> {
    const buffers = new BufferPool();
    const clock = { now: () => this.time, sleep: (milliseconds: number) => this.sleep(milliseconds) };
    const result = await replay(plan, new Dispatch(this.device), buffers, {
      fast: false,
      depth: 8,
      clock,
      ...more,
    });
    buffers.close();
    return result;
  }

  #take(what: string, offset: number): void | Promise<void> {
    this.told.push(`${this.time - 1000}: ${what} ${offset}`);
    if (offset === SIZE - 512) throw new ErrnoError("EIO");
    if (this.takes === 0) return undefined;
    this.#inFlight += 1;
    this.inFlightMax = Math.max(this.inFlightMax, this.#inFlight);
    return this.sleep(this.takes).then(() => void (this.#inFlight -= 1));
  }

  /** Moves to the next timer when nothing else is left to do. */
  #advance(): void {
    this.#timers.sort((a, b) => a.at - b.at);
    const next = this.#timers.shift();
    if (next === undefined) return;
    this.time = Math.max(this.time, next.at);
    next.fire();
  }
}

const SPREAD = [0, 10, 10, 35].map((at, index) => planned({ at, offset: index * 512 }));

test.each([
  {
    fast: false,
    depth: 8,
    takes: 0,
    told: ["0: read 0", "10: read 512", "10: read 1024", "35: read 1536"],
    late: 0,
  },
  {
    fast: false,
    depth: 8,
    takes: 20,
    told: ["0: read 0", "10: read 512", "10: read 1024", "35: read 1536"],
    late: 0,
  },
  // One at a time: the last two wait for those before.
  {
    fast: false,
    depth: 1,
    takes: 20,
    told: ["0: read 0", "20: read 512", "40: read 1024", "60: read 1536"],
    late: 30,
  },
  {
    fast: true,
    depth: 8,
    takes: 20,
    told: ["0: read 0", "0: read 512", "0: read 1024", "0: read 1536"],
    late: 0,
  },
  {
    fast: true,
    depth: 2,
    takes: 20,
    told: ["0: read 0", "0: read 512", "20: read 1024", "20: read 1536"],
    late: 0,
  },
])("when requests are begun: %p", async ({ fast, depth, takes, told, late }) => {
  const scene = new Scene(takes);
  const { lateMs } = await scene.replay(SPREAD, { fast, depth });
  expect(scene.told).toEqual([...told]);
  expect(lateMs).toBe(late);
  expect(scene.inFlightMax).toBeLessThanOrEqual(depth);
});

test("what is written, what keeps its order, what is counted", async () => {
  const scene = new Scene(5);
  const result = await scene.replay([
    planned({ command: "write", payload: new Uint8Array(512).fill(7), fua: true }),
    // It touches the same bytes, and one whose bytes are not known is filled with the numbers of its sectors.
    planned({ command: "write", length: 1024 }),
    planned({ command: "write", offset: 300 * 512, took: Number.NaN }),
    planned({ command: "flush", length: 0, took: 300 }),
    planned({ command: "trim", offset: 4096, failed: true }),
    planned({ command: "zero", offset: 8192 }),
    planned({ offset: SIZE - 512, took: 2_500_000 }),
  ]);
  expect(scene.told).toEqual([
    "0: write fua 7 0",
    `0: write ${300 % 256} ${300 * 512}`,
    "0: flush 0",
    "0: trim 4096",
    `0: read ${SIZE - 512}`,
    "5: write 0 0",
  ]);
  expect(result.leftOut).toBe(1);
  const counted = result.commands.map(({ command, requests, errors, errorsThen, now, before }) => [
    command,
    requests,
    errors,
    errorsThen,
    now.max,
    before.max,
  ]);
  expect(counted).toEqual([
    ["read", 1, 1, 0, 0, 2_500_000],
    ["write", 3, 0, 0, 10_000, 100],
    ["flush", 1, 0, 0, 5000, 300],
    ["trim", 1, 0, 1, 5000, 0],
  ]);
  expect(
    resultText(result, false)
      .split("\n")
      .map((line) => line.replaceAll(/ +/g, " ")),
  ).toEqual([
    "COMMAND REQUESTS ERRORS P50 P99 MAX THEN: ERRORS P50 P99 MAX",
    "read 1 1 - - - 0 2.5s 2.5s 2.5s",
    "write 3 0 5.2ms 10ms 10ms 0 100us 100us 100us",
    "flush 1 0 5.0ms 5.0ms 5.0ms 0 300us 300us 300us",
    "trim 1 0 5.0ms 5.0ms 5.0ms 1 - - -",
    "0.010 s now, 2.500 s then; a request was begun up to 0.0 ms late",
  ]);
});

test("an interrupted replay begins no more, and waits for what it has begun", async () => {
  const scene = new Scene(0);
  const stop = new AbortController();
  const read = scene.device.read.bind(scene.device);
  scene.device.read = (target, offset) => {
    if (offset === 512) stop.abort();
    return read(target, offset);
  };
  const { commands } = await scene.replay(SPREAD, { stop: stop.signal });
  expect(scene.told).toEqual(["0: read 0", "10: read 512"]);
  expect(commands[0]?.requests).toBe(2);
});

test.each([
  [{ offset: SIZE - 512 }, undefined],
  [{ offset: SIZE }, "disk has 1048576 bytes, and the requests go up to 1049088"],
  [{ offset: 512 }, undefined],
])("a disk without room for a request is refused: %p", (more, expected) => {
  const check = (): void =>
    mustFit([planned({}), planned(more)], { name: "disk", size: SIZE, blockSize: 512 });
  if (expected === undefined) expect(check).not.toThrow();
  else expect(check).toThrow(expected);
});

test("a disk with larger blocks than a request has is refused", () => {
  const shape = { name: "disk", size: SIZE, blockSize: 4096 };
  expect(() => mustFit([planned({ length: 4096 }), planned({ command: "trim" })], shape)).toThrow(
    "disk has blocks of 4096 bytes, and a trim is of 512 at 0",
  );
});

test.each([
  [0, "0"],
  [1.234, "1.2us"],
  [999.6, "1.0ms"],
  [999_600, "1.0s"],
])("%p microseconds are %p", (microseconds, text) => expect(formatDuration(microseconds)).toBe(text));
