/** Goal: every thread of a server has the mark that it must not wait for block I/O when it needs memory. */
import { afterEach, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { BINARY, endServers, Server } from "../support/server.ts";
import { run, sh } from "../support/shell.ts";
import { TestNode, TRANSPORTS } from "../support/transports.ts";

const PID_FILE = "/run/tsbuse.pid";
/** include/linux/sched.h: PF_MEMALLOC_NOIO. */
const NO_IO = 0x00080000;

let disks: readonly TestNode[] = [];

afterEach(async () => {
  await sh(`[ ! -e ${PID_FILE} ] || kill $(cat ${PID_FILE})`);
  await endServers();
  for (const disk of disks) await disk.untilFree();
});

/** proc_pid_stat(5): the flags of a task follow its name, six fields later. */
function flagsOf(stat: string): number {
  return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[6]);
}

/** The names of a process's threads that may wait for I/O when they need memory. */
function threadsAtRisk(pid: number): string[] {
  const tasks = readdirSync(`/proc/${pid}/task`).map((task) => `/proc/${pid}/task/${task}`);
  expect(tasks.length).toBeGreaterThan(1);
  return tasks
    .filter((task) => (flagsOf(readFileSync(`${task}/stat`, "utf8")) & NO_IO) === 0)
    .map((task) => readFileSync(`${task}/comm`, "utf8").trim());
}

const STARTS = TRANSPORTS.flatMap((transport) => [
  { transport, options: [] },
  { transport, options: ["--layer", "cow"] },
  { transport, options: ["--queues", "2"] },
  { transport, options: ["--daemon"] },
]);

test.each(STARTS)("$transport.name: every thread is marked: $options", async ({ transport, options }) => {
  const disk = new TestNode(transport, 0);
  disks = [disk];
  const words = ["ramdisk", "64M", disk.path, ...options];
  let pid = 0;
  if (options.includes("--daemon")) {
    const end = await run([BINARY, ...words, "--pid-file", PID_FILE]);
    expect(end).toEqual({ status: 0, stdout: `${disk.path}\n`, stderr: "" });
    pid = Number(readFileSync(PID_FILE, "utf8"));
  } else {
    ({ pid } = await Server.start(...words));
  }
  await sh(`dd if=/dev/zero of=${disk.path} bs=4k count=64 oflag=direct status=none`);
  expect(threadsAtRisk(pid)).toEqual([]);
  expect(readFileSync(`/proc/${pid}/comm`, "utf8")).toBe("tsbuse\n");
});

test.each(TRANSPORTS)("$name: the command of --run is not", async (transport) => {
  disks = [new TestNode(transport, 0)];
  const end = await run([BINARY, "ramdisk", "4M", disks[0]?.path ?? "", "--run", "exec cat /proc/self/stat"]);
  expect(flagsOf(end.stdout.split("\n")[1] ?? "") & NO_IO).toBe(0);
  expect(end.stderr).toBe("");
});

test.each(TRANSPORTS)("$name: without CAP_SYS_RESOURCE it says so once, and goes on", async (transport) => {
  disks = [new TestNode(transport, 0)];
  const command = [BINARY, "ramdisk", "4M", disks[0]?.path ?? "", "--run", "true"];
  const end = await run(["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource", ...command]);
  expect(end.status).toBe(0);
  expect(end.stderr).toBe(
    "tsbuse: warning: memory may be reclaimed through the device itself: prctl(PR_SET_IO_FLUSHER): Operation not permitted\n",
  );
});
