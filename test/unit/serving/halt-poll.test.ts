/** Goal: a loop polls for longer while that would have found something, and stops polling once it would not. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { HaltPoll } from "../../../src/serving/halt-poll.ts";

/** `[milliseconds, whether it slept, the limit afterwards]` of each wait, in their order. */
type Waits = readonly (readonly [number, boolean, number])[];

function follow(poll: HaltPoll, waits: Waits): void {
  for (const [tookMs, slept, limitMs] of waits) {
    poll.waited(tookMs, slept);
    expect(poll.limitMs).toBe(limitMs);
  }
}

test("it asks for nothing at first", () => {
  expect(new HaltPoll(undefined, 2).limitMs).toBe(0);
});

test("it grows, up to a limit, while sleeps are short", () => {
  follow(new HaltPoll(undefined, 2), [
    [0.02, true, 0.01],
    [0.05, true, 0.02],
    [0.001, true, 0.04],
    [0.045, true, 0.05],
    [0.05, true, 0.05],
  ]);
});

test("it stays while asking finds something", () => {
  follow(new HaltPoll(undefined, 2), [
    [0.02, true, 0.01],
    [0.008, false, 0.01],
    [0.01, false, 0.01],
    [0.02, true, 0.02],
    [0, false, 0.02],
  ]);
});

test("it asks no more once a wait was long, and begins anew", () => {
  follow(new HaltPoll(undefined, 2), [
    [0.02, true, 0.01],
    [0.02, true, 0.02],
    [0.051, true, 0],
    [1000, true, 0],
    [0.02, true, 0.01],
    // The thread was kept from its processor while it asked.
    [4, false, 0],
  ]);
});

test("it never asks where there is one processor, unless it is told to", () => {
  follow(new HaltPoll(undefined, 1), [
    [0.02, true, 0],
    [0.02, true, 0],
  ]);
  expect(new HaltPoll(0.03, 1).limitMs).toBe(0.03);
});

test.each([0, 0.005, 0.3])("told %p ms it asks for just as long", (wishMs) => {
  follow(new HaltPoll(wishMs, 8), [
    [0.02, true, wishMs],
    [1000, true, wishMs],
    [0.001, false, wishMs],
  ]);
});

test("processors are those that the process may run on", () => {
  const module = `${import.meta.dir}/../../../src/serving/halt-poll.ts`;
  const program = `
    const { HaltPoll } = await import(${JSON.stringify(module)});
    const poll = new HaltPoll(undefined);
    poll.waited(0.02, true);
    console.log(poll.limitMs);`;
  const [, first = ""] = /^Cpus_allowed_list:\s*(\d+)/m.exec(readFileSync("/proc/self/status", "utf8")) ?? [];
  const { stdout } = Bun.spawnSync(["taskset", "-c", first, process.execPath, "-e", program]);
  expect(stdout.toString()).toBe("0\n");
});
