/** Goal: which process is the daemon, when it is ready, and who owns its PID file. Sockets need no root or driver. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, lstatSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { writeFiles } from "../../support/files.ts";
import { type Finished, run, until } from "../../support/shell.ts";
import { TemporaryDirectory } from "../../support/temporary.ts";
import { commandOf } from "./tsbuse.ts";

let directory: TemporaryDirectory;
let pids: Set<number>;

beforeEach(() => {
  directory = new TemporaryDirectory();
  pids = new Set();
});

afterEach(async () => {
  for (const pid of pids) if (isRunning(pid)) process.kill(pid, "SIGKILL");
  for (const pid of pids) await until(`the end of process ${pid}`, () => !isRunning(pid));
  directory[Symbol.dispose]();
});

/** A process that has ended remains until its parent, which is not ours, has reaped it. */
function isRunning(pid: number): boolean {
  return existsSync(`/proc/${pid}`) && statOf(pid)[0] !== "Z";
}

/** proc_pid_stat(5) from the state on. */
function statOf(pid: number): string[] {
  return readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)?.split(" ") ?? [];
}

const pidFile = (): string => directory.join("pid");

/** The process named in the PID file; it ends with the test. */
function owner(): number {
  const pid = Number(readFileSync(pidFile(), "utf8"));
  pids.add(pid);
  return pid;
}

function daemon(name: string, environment = ""): Promise<Finished> {
  const target = `unix:${directory.join(name)}`;
  const words = commandOf("ramdisk", "1M", target, "--daemon", "--pid-file", pidFile());
  return run(["env", ...environment.split(" ").filter(Boolean), ...words], 30_000);
}

const READY = { status: 0, stderr: "" };

test.each(["", "TSBUSE_DAEMON=1", `TSBUSE_DAEMON=${process.pid}`])(
  "a daemon, with %p in its environment: the command is done once it is ready",
  async (environment) => {
    const end = await daemon("s", environment);
    expect(end).toEqual({ ...READY, stdout: `nbd+unix:///?socket=${directory.join("s")}\n` });
    const pid = owner();
    expect(statOf(pid)[3], "session").toBe(String(pid));
    process.kill(pid, "SIGTERM");
    await until("it has cleaned up", () => !existsSync(pidFile()) && !existsSync(directory.join("s")));
  },
);

test("what a module prints is neither its readiness nor a result, and what it starts is no daemon's child", async () => {
  const module = writeFiles(directory.path, {
    "disk.ts": `process.stdout.write("not ready");
      console.log("%s ready", "almost");
      console.group("a group");
      console.count("times");
      console.groupEnd();
      const inner = ${JSON.stringify([...commandOf("ramdisk", "1M"), `unix:${directory.join("inner")}`])};
      const child = Bun.spawnSync([...inner, "--run", "echo inner: $TSBUSE_DEVICE"], { stdio: ["ignore", "pipe", "inherit"] });
      console.log(child.stdout.toString());
      export default { size: 512, read() {} };`,
  });
  const target = `unix:${directory.join("s")}`;
  const end = await run(commandOf("run", module, target, "--daemon", "--pid-file", pidFile()), 30_000);
  owner();
  expect(end.stdout).toBe(`nbd+unix:///?socket=${directory.join("s")}\n`);
  expect(end.stderr).toMatch(/^almost ready\na group\n  times: 1\nnbd\+unix:.*\ninner: nbd\+unix:.*inner\n/);
  expect(end.status).toBe(0);
});

test("a daemon that cannot start: its line and its status", async () => {
  writeFileSync(directory.join("s"), "");
  const end = await daemon("s");
  expect(end).toMatchObject({ status: 1, stdout: "" });
  expect(end.stderr).toMatch(/^tsbuse: .* exists and is not a socket: [^\n]+\n$/);
});

test("the PID file of a running daemon is its own; that of a dead one is replaced", async () => {
  expect(await daemon("first")).toMatchObject(READY);
  const first = owner();
  const second = await daemon("second");
  expect(second).toMatchObject({ status: 1, stdout: "" });
  expect(second.stderr).toBe(
    `tsbuse: the PID file ${pidFile()} is that of process ${first}, which is running: end it, or choose another name\n`,
  );
  expect(owner()).toBe(first);
  process.kill(first, "SIGKILL");
  await until("it is gone", () => !isRunning(first));
  expect(await daemon("third")).toMatchObject(READY);
  expect(owner()).not.toBe(first);
});

test("the number in a PID file may be another program's by now; a file that names another stays", async () => {
  writeFileSync(pidFile(), `${process.pid}\n`);
  expect(await daemon("s")).toMatchObject(READY);
  const pid = owner();
  expect(pid).not.toBe(process.pid);
  writeFileSync(pidFile(), "1\n");
  process.kill(pid, "SIGTERM");
  await until("it is gone", () => !isRunning(pid));
  expect(readFileSync(pidFile(), "utf8")).toBe("1\n");
});

test("a link in the place of the file to be is not followed", async () => {
  const precious = writeFiles(directory.path, { precious: "kept" });
  symlinkSync(precious, `${pidFile()}.new`);
  expect(await daemon("s")).toMatchObject(READY);
  owner();
  expect(readFileSync(precious, "utf8")).toBe("kept");
  expect(lstatSync(pidFile()).isFile()).toBe(true);
  expect(existsSync(`${pidFile()}.new`)).toBe(false);
});
