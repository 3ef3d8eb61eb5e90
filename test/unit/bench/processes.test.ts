import { expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { cpuMicroseconds, isRunning, peakResidentBytes } from "../../../scripts/bench/processes.ts";
import { TemporaryDirectory } from "../../support/temporary.ts";

const LIMIT_MS = 20_000;

async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + LIMIT_MS;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`not within ${LIMIT_MS} ms`);
    await Bun.sleep(5);
  }
}

/** A shell that runs until it is disposed of, and what it started with it. */
function startShell(script: string) {
  const child = Bun.spawn(["setsid", "sh", "-c", script], { stdio: ["ignore", "ignore", "inherit"] });
  return {
    pid: child.pid,
    [Symbol.asyncDispose]: async () => {
      process.kill(-child.pid, "SIGKILL");
      await child.exited;
    },
  };
}

test("processor time is that of a process that works, and no more than the time that passed", async () => {
  const started = performance.now();
  await using shell = startShell("while :; do :; done");
  await until(() => cpuMicroseconds(shell.pid) >= 50_000);
  expect(cpuMicroseconds(shell.pid)).toBeLessThanOrEqual((performance.now() - started) * 1000 + 20_000);
});

test("a child's time counts when it has ended, too", async () => {
  using directory = new TemporaryDirectory();
  const mark = directory.join("ended");
  const work = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
  await using shell = startShell(`sh -c '${work}'; touch ${mark}; sleep 600`);
  await until(() => existsSync(mark));
  expect(cpuMicroseconds(shell.pid)).toBeGreaterThanOrEqual(50_000);
});

test("memory is that of the children as well", async () => {
  await using parent = startShell("sleep 600 & sleep 600 & wait");
  const own = (): number =>
    Number(/^VmHWM:\s*(\d+) kB$/m.exec(readFileSync(`/proc/${parent.pid}/status`, "utf8"))?.[1]);
  await until(() => peakResidentBytes(parent.pid) > own() * 1024 * 1.5);
});

test("a process that is gone is not running, and used nothing", async () => {
  const child = Bun.spawn(["true"]);
  await child.exited;
  expect(isRunning(child.pid)).toBe(false);
  expect(cpuMicroseconds(child.pid)).toBe(0);
  expect(isRunning(process.pid)).toBe(true);
});
