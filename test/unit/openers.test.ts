/** Goal: processes that have a file open are named, even if the file is gone by then; this process is never named. */
import { afterEach, expect, test } from "bun:test";
import { closeSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { hasOpen, openersOf } from "../../src/nodes/openers.ts";
import { until } from "../support/shell.ts";
import { TemporaryDirectory } from "../support/temporary.ts";

const children: Bun.Subprocess[] = [];

afterEach(async () => {
  for (const child of children.splice(0)) {
    child.kill();
    await child.exited;
  }
});

/** A process with the file open as its stdin. */
async function opener(path: string): Promise<number> {
  const child = Bun.spawn(["sleep", "60"], { stdin: Bun.file(path) });
  children.push(child);
  await until("it has started", () => readFileSync(`/proc/${child.pid}/comm`, "utf8") === "sleep\n");
  return child.pid;
}

test("a file that nobody has open has no openers, nor has one that is not there", () => {
  using directory = new TemporaryDirectory();
  writeFileSync(directory.join("file"), "");
  expect(openersOf(directory.join("file"))).toEqual([]);
  expect(openersOf(directory.join("absent"))).toEqual([]);
});

test("each process that has it open is named, once, before and after the file is gone", async () => {
  using directory = new TemporaryDirectory();
  const path = directory.join("file");
  writeFileSync(path, "");
  writeFileSync(`${path}2`, "");
  const pids = [await opener(path), await opener(path)];
  await opener(`${path}2`);
  const names = pids.map((pid) => `sleep (process ${pid})`).toSorted();
  expect(openersOf(path).toSorted()).toEqual(names);
  rmSync(path);
  expect(openersOf(path).toSorted()).toEqual(names);
});

test("this process is not named", () => {
  using directory = new TemporaryDirectory();
  const path = directory.join("file");
  writeFileSync(path, "");
  const fd = openSync(path, "r");
  expect(openersOf(path)).toEqual([]);
  closeSync(fd);
});

test.skipIf(process.getuid?.() !== 0 || Bun.which("setpriv") === null)(
  "of a process that may not be looked into it is not known what it has open: without CAP_SYS_PTRACE",
  async () => {
    const [pid, file] = [await opener("/dev/null"), join(import.meta.dir, "../../src/nodes/openers.ts")];
    const script = `import { hasOpen } from ${JSON.stringify(file)}; console.log(hasOpen(${pid}, "/dev/null"));`;
    const dropped = ["--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"];
    const child = Bun.spawnSync(["setpriv", ...dropped, process.execPath, "-e", script]);
    expect([hasOpen(pid, "/dev/null"), child.stdout.toString()]).toEqual([true, "undefined\n"]);
  },
);
