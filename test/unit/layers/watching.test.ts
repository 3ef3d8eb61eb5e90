/** The layers that watch a device or disturb it: log, stats, error and delay. */
import { describe, expect, spyOn, test } from "bun:test";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import type { BlockDevice } from "../../../src/device.ts";
import { ErrnoError } from "../../../src/errors.ts";
import { COMMANDS } from "../../../src/layers/around.ts";
import { delayLayer } from "../../../src/layers/delay.ts";
import { errorLayer } from "../../../src/layers/error.ts";
import { logLayer } from "../../../src/layers/log.ts";
import { RequestStatistics, statsLayer } from "../../../src/layers/stats.ts";
import { userError } from "../../support/failure.ts";
import { Shadow } from "../../support/shadow.ts";
import { TemporaryDirectory } from "../../support/temporary.ts";

const SIZE = 64 * 1024;
const BLOCK = new Uint8Array(512);
const PLAIN = { fua: false };

/** One request of each command. */
const REQUESTS: Record<(typeof COMMANDS)[number], (device: BlockDevice) => void | Promise<void>> = {
  read: (device) => device.read(BLOCK, 0),
  write: (device) => device.write?.(BLOCK, 512, { fua: true }),
  flush: (device) => device.flush?.(),
  trim: (device) => device.trim?.(1024, 2048, PLAIN),
  zero: (device) => device.writeZeroes?.(4096, 512, { fua: false, mayTrim: false }),
};

function failingReads(): BlockDevice {
  const device = new Shadow(SIZE);
  device.faults.set("read", () => {
    throw new ErrnoError("ENODATA");
  });
  return device;
}

describe("log", () => {
  test("a line of JSON for each request, in order", () => {
    const lines: string[] = [];
    const device = logLayer({ report: (line) => lines.push(line) })(new Shadow(SIZE));
    for (const command of COMMANDS) void REQUESTS[command](device);
    const entries = lines.map((line) => JSON.parse(line));
    const common = { time: expect.any(String), duration: expect.any(Number), error: null };
    expect(entries).toEqual([
      { ...common, command: "read", offset: 0, length: 512, fua: false },
      { ...common, command: "write", offset: 512, length: 512, fua: true },
      { ...common, command: "flush", offset: 0, length: 0, fua: false },
      { ...common, command: "trim", offset: 1024, length: 2048, fua: false },
      { ...common, command: "zero", offset: 4096, length: 512, fua: false },
    ]);
    for (const { time, duration } of entries) {
      expect(new Date(time).toISOString()).toBe(time);
      expect(duration).toBeGreaterThanOrEqual(0);
    }
  });

  test("a failure has its name", () => {
    const lines: string[] = [];
    const device = logLayer({ report: (line) => lines.push(line) })(failingReads());
    expect(() => device.read(BLOCK, 0)).toThrow(ErrnoError);
    expect(JSON.parse(lines[0] ?? "")).toMatchObject({ command: "read", error: "ENODATA" });
  });

  test("an asynchronous request is logged when it is done", async () => {
    const lines: string[] = [];
    const { promise, resolve } = Promise.withResolvers<void>();
    const device = logLayer({ report: (line) => lines.push(line) })({ size: SIZE, read: () => promise });
    const reading = device.read(BLOCK, 0);
    expect(lines).toEqual([]);
    resolve();
    await reading;
    expect(lines).toHaveLength(1);
  });

  test("lines are added to a file, which is made", async () => {
    using directory = new TemporaryDirectory();
    const file = directory.join("requests.log");
    for (const count of [1, 2]) {
      const device = logLayer({ file })(new Shadow(SIZE));
      void device.read(BLOCK, 0);
      await device.close?.();
      expect(readFileSync(file, "utf8").trimEnd().split("\n")).toHaveLength(count);
    }
  });

  test("a file that cannot be opened is one line", () => {
    expect(userError(() => logLayer({ file: "/nonexistent/log" })(new Shadow(SIZE)))).toBe(
      "/nonexistent/log cannot be opened: its directory does not exist, make it first",
    );
  });
});

describe("stats", () => {
  test("counts requests, bytes of those that succeeded, errors and time", () => {
    const statistics = new RequestStatistics();
    const device = statsLayer({ statistics })(failingReads());
    expect(() => device.read(BLOCK, 0)).toThrow();
    void device.read(BLOCK, 0);
    void device.read(BLOCK, 512);
    const { requests, bytes, errors, p50, p99, max } = statistics.of("read");
    expect({ requests, bytes, errors }).toEqual({ requests: 3, bytes: 1024, errors: 1 });
    expect(p50).toBeGreaterThan(0);
    expect(p99).toBeGreaterThanOrEqual(p50);
    expect(max).toBeGreaterThanOrEqual(p99);
    expect(statistics.of("trim")).toEqual({ requests: 0, bytes: 0, errors: 0, p50: 0, p99: 0, max: 0 });
  });

  test("percentiles are right to a tenth", () => {
    const statistics = new RequestStatistics();
    for (let microseconds = 1; microseconds <= 1000; microseconds += 1) {
      statistics.add("write", 512, microseconds, false);
    }
    const { p50, p99, max } = statistics.of("write");
    expect(p50).toBeWithin(500, 551);
    expect(p99).toBeWithin(990, 1001);
    expect(max).toBe(1000);
  });

  test("are printed once, at close, for the commands that were asked for", async () => {
    const lines: string[] = [];
    const device = statsLayer({ report: (line) => lines.push(line) })(new Shadow(SIZE));
    void device.read(BLOCK, 0);
    await device.flush?.();
    expect(lines).toEqual([]);
    await device.close?.();
    await device.close?.();
    expect(lines).toEqual([
      expect.stringMatching(/^stats: read: requests 1, bytes 512, errors 0, microseconds: median [\d.]+, /),
      expect.stringMatching(/^stats: flush: requests 1, bytes 0, errors 0, /),
    ]);
  });
});

/** The indices of failing reads among 400. */
function failures(device: BlockDevice): number[] {
  return Array.from({ length: 400 }, (_, index) => index).filter((index) => {
    try {
      void device.read(BLOCK, (index * 512) % SIZE);
      return false;
    } catch (error) {
      expect(error).toBeInstanceOf(ErrnoError);
      return true;
    }
  });
}

describe("error", () => {
  test("every request fails with EIO, and none reaches the device", () => {
    const shadow = new Shadow(SIZE);
    const device = errorLayer()(shadow);
    for (const command of COMMANDS) expect(() => REQUESTS[command](device)).toThrow("EIO");
    expect(shadow.calls).toEqual([]);
  });

  test.each([...COMMANDS])("only %s fails, with the errno that was asked for", (command) => {
    const device = errorLayer({ command, errno: "ENOSPC" })(new Shadow(SIZE));
    for (const each of COMMANDS) {
      if (each !== command) expect(REQUESTS[each](device)).toBeUndefined();
    }
    expect(() => REQUESTS[command](device)).toThrow("ENOSPC");
  });

  test("a rate is kept, and the same seed fails at the same places", () => {
    const places = (seed: number): number[] => failures(errorLayer({ rate: 0.1, seed })(new Shadow(SIZE)));
    expect(places(1).length).toBeWithin(20, 61);
    expect(places(1)).toEqual(places(1));
    expect(places(1)).not.toEqual(places(2));
    expect(failures(errorLayer({ rate: 0 })(new Shadow(SIZE)))).toEqual([]);
  });

  test("with a trigger, requests fail while the file exists", () => {
    using directory = new TemporaryDirectory();
    const trigger = directory.join("fail");
    const device = errorLayer({ trigger })(new Shadow(SIZE));
    expect(device.read(BLOCK, 0)).toBeUndefined();
    writeFileSync(trigger, "");
    expect(() => device.read(BLOCK, 0)).toThrow("EIO");
    rmSync(trigger);
    expect(device.read(BLOCK, 0)).toBeUndefined();
  });
});

describe("delay", () => {
  test("a request waits for its own time, or for that of all, and others beside it", async () => {
    const slept: unknown[] = [];
    const over = Promise.withResolvers<void>();
    using _ = spyOn(Bun, "sleep").mockImplementation((time) => {
      slept.push(time);
      return over.promise;
    });
    const shadow = new Shadow(SIZE);
    const device = delayLayer({ read: 0, flush: 20, all: 40 })(shadow);
    const all = COMMANDS.map((command) => REQUESTS[command](device));
    expect(slept).toEqual([40, 20, 40, 40]);
    await all[0];
    expect(shadow.calls).toEqual(["read 0+512"]);
    over.resolve();
    await Promise.all(all);
    expect(shadow.calls).toHaveLength(5);
  });

  test("the options of a write are those of its call, however the caller goes on", async () => {
    const shadow = new Shadow(SIZE);
    const options = { fua: true };
    const writing = delayLayer({ all: 1 })(shadow).write?.(BLOCK, 0, options);
    options.fua = false;
    await writing;
    expect(shadow.calls).toEqual(["write 0+512 fua"]);
  });
});
