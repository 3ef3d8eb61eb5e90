import { expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { cpuMicroseconds, isRunning, peakResidentBytes } from "../../../scripts/bench/processes.ts";
import { until } from "../../support/shell.ts";
import { TemporaryDirectory } from "../../support/temporary.ts";

/** A shell that runs until it is disposed of, together with what it started. */
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
  await until("it has worked", () => cpuMicroseconds(shell.pid) >= 50_000);
  expect(cpuMicroseconds(shell.pid)).toBeLessThanOrEqual((performance.now() - started) * 1000 + 20_000);
});

test("a child's time counts when it has ended, too", async () => {
  using directory = new TemporaryDirectory();
  const mark = directory.join("ended");
  const work = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
  await using shell = startShell(`sh -c '${work}'; touch ${mark}; sleep 600`);
  await until("it has ended", () => existsSync(mark), 60_000);
  expect(cpuMicroseconds(shell.pid)).toBeGreaterThanOrEqual(50_000);
});

test("memory is that of the children as well", async () => {
  await using parent = startShell("sleep 600 & sleep 600 & wait");
  const own = (): number =>
    Number(/^VmHWM:\s*(\d+) kB$/m.exec(readFileSync(`/proc/${parent.pid}/status`, "utf8"))?.[1]);
  await until("its children count", () => peakResidentBytes(parent.pid) > own() * 1024 * 1.5);
});

test("a process that is gone is not running, and used nothing", async () => {
  const child = Bun.spawn(["true"]);
  await child.exited;
  expect(isRunning(child.pid)).toBe(false);
  expect(cpuMicroseconds(child.pid)).toBe(0);
  expect(isRunning(process.pid)).toBe(true);
});
