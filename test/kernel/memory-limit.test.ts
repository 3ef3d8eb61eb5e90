/** Goal: a device in memory fills what its control group allows; beyond that, writes fail and no process is killed. */
import { afterEach, beforeAll, expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { errno } from "tsbuse";
import { endServers, Server } from "../support/server.ts";
import { run, sh } from "../support/shell.ts";
import { errorSeen, type NodeTransport, TestNode, TRANSPORTS } from "../support/transports.ts";

const MIB = 2 ** 20;
const LIMIT_MIB = 200;
const ROOT = "/sys/fs/cgroup";
/** The group with the limit, which contains the server's group. */
const OUTER = `${ROOT}/limited`;
const INNER = `${OUTER}/server`;

let disk: TestNode | undefined;

beforeAll(() => sh(`mountpoint -q ${ROOT} || mount -t cgroup2 none ${ROOT}`));

afterEach(async () => {
  await endServers();
  await disk?.untilFree();
  await sh(`for group in ${INNER} ${OUTER}; do [ ! -e $group ] || rmdir $group; done`);
});

/** Moves the process, with the memory that it takes from now on, into a group below one with a limit. */
function limit(pid: number, attribute: string): void {
  writeFileSync(`${ROOT}/cgroup.subtree_control`, "+memory");
  mkdirSync(INNER, { recursive: true });
  writeFileSync(`${OUTER}/cgroup.subtree_control`, "+memory");
  writeFileSync(`${OUTER}/${attribute}`, String(LIMIT_MIB * MIB));
  writeFileSync(`${INNER}/cgroup.procs`, String(pid));
}

/** How often the kernel has killed a process of a group, or was about to. */
async function endedProcesses(): Promise<string> {
  return sh("dmesg | grep -c 'oom-kill:\\|invoked oom-killer' || true");
}

/** MiB written by `count` writers at separate places, each until its first error. */
async function fill(node: TestNode, count: number, expectedError: number): Promise<number> {
  const share = 1024 / count;
  const writers = Array.from({ length: count }, (_, index) =>
    run(
      `fio --name=fill --filename=${node.path} --rw=write --bs=1M --direct=1 --ioengine=libaio --iodepth=32
      --offset=${index * share}M --size=${share}M --output-format=json`.split(/\s+/),
    ),
  );
  const reports = (await Promise.all(writers)).map(({ stdout }) => stdout);
  const numbers = (pattern: RegExp): number[] => reports.map((text) => Number(pattern.exec(text)?.[1]));
  expect(numbers(/"error" : (\d+)/)).toEqual(writers.map(() => expectedError));
  return numbers(/"write" : {[^}]*?"io_kbytes" : (\d+)/).reduce((sum, kib) => sum + kib / 1024, 0);
}

/** Fills the device of a server in a group with a limit: expects writes to fail, and the server to survive. */
async function expectSurvival(transport: NodeTransport, server: Server, node: TestNode, writers: number) {
  const before = await endedProcesses();
  await sh(`yes tsbuse | dd of=${node.path} bs=1M count=8 iflag=fullblock oflag=direct status=none`);
  const written = await fill(node, writers, errorSeen(transport, errno.ENOSPC));
  // The program and the reserve use the rest.
  expect(written).toBeGreaterThan(0);
  expect(written).toBeLessThan(LIMIT_MIB);
  expect(await endedProcesses()).toBe(before);
  expect(readFileSync(`/proc/${server.pid}/comm`, "utf8")).toBe("tsbuse\n");
  await sh(`yes again | dd of=${node.path} bs=1M count=8 iflag=fullblock oflag=direct status=none`);
  expect(await sh(`dd if=${node.path} bs=1M count=8 iflag=direct status=none | head -c 5`)).toBe("again");
  expect(await server.stop()).toBe(0);
}

const RAMDISK = ["ramdisk", "1G"];
const COW = ["deadbeef", "1G"];

const CASES = TRANSPORTS.flatMap((transport) => [
  { transport, words: RAMDISK, options: [], attribute: "memory.max" },
  { transport, words: RAMDISK, options: [], attribute: "memory.high" },
  { transport, words: RAMDISK, options: ["--queues", "2"], attribute: "memory.max" },
  { transport, words: COW, options: ["--layer", "cow"], attribute: "memory.max" },
]);

test.each(CASES)(
  "$transport.name: $words $options with $attribute",
  async ({ transport, words, options, attribute }) => {
    disk = new TestNode(transport, 0);
    const server = await Server.start(...words, disk.path, ...options);
    limit(server.pid, attribute);
    await expectSurvival(transport, server, disk, 4);
    const lines = (await server.errors).split("\n").filter((line) => line.includes("control group"));
    const line = "the memory limit of control group /limited is reached";
    if (words === RAMDISK) {
      const rest = "writes fail until some is free, or is trimmed";
      expect(lines.filter((each) => each === `tsbuse: warning: ${line}: ${rest}`)).not.toEqual([]);
    } else {
      expect(lines[0]).toEndWith(`write failed: ${line}`);
    }
  },
);
