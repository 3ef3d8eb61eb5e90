/** Goal: a device moves to another process while it is in use, and its users notice only a pause. */
import { afterEach, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { connectToServer } from "../../src/control/client.ts";
import { fio, VERIFY } from "../support/fio.ts";
import { pattern, readDirect, writeDirect } from "../support/node-io.ts";
import { BINARY, endServers, refusal, Server, untilFree } from "../support/server.ts";
import { run, sh, until } from "../support/shell.ts";
import { devices } from "../support/ublk-nodes.ts";

const UBLK = "/dev/ublkb0";
const NBD = "/dev/nbd0";
const MIB = 2 ** 20;
const FILE = "/mnt/handover.img";
const RAMDISK = ["ramdisk", `${16 * MIB}`, "--handover"];
afterEach(async () => {
  await endServers();
  if (existsSync("/dev/ublkc0")) await run([BINARY, "disconnect", UBLK, "--force"]);
  if (existsSync("/sys/block/nbd0/pid")) await run([BINARY, "disconnect", NBD, "--force"]);
  await sh(`rm -f ${FILE} ${FILE}.cow ${FILE}.other`);
});

interface Kind {
  readonly node: string;
  readonly words: readonly string[];
  /** Options of the first server only. */
  readonly options?: readonly string[];
  /** The previous process closes the device, so it cannot go back once it has let go. */
  readonly leaves?: true;
  readonly survivesKill?: true;
}

const KINDS: readonly (readonly [string, Kind])[] = [
  [
    "a file by two queues on ublk",
    { node: UBLK, words: ["loop", FILE], options: ["--recover", "--queues", "2"] },
  ],
  [
    "a file behind a layer on ublk",
    { node: UBLK, words: ["loop", FILE, "--layer", "stats"], options: ["--recover"], leaves: true },
  ],
  ["a RAM disk on ublk", { node: UBLK, words: RAMDISK }],
  ["a file by two queues on NBD", { node: NBD, words: ["loop", FILE], options: ["--queues", "2"] }],
  [
    "an overlay on NBD",
    {
      node: NBD,
      words: ["loop", FILE, "--layer", `cow:file=${FILE}.cow`],
      options: ["--recover"],
      leaves: true,
      survivesKill: true,
    },
  ],
  [
    "changes in memory on ublk",
    { node: UBLK, words: ["loop", FILE, "--layer", "cow"], options: ["--handover"] },
  ],
  [
    "changes in memory and a RAM disk behind a layer on NBD",
    { node: NBD, words: [...RAMDISK, "--layer", "stats", "--layer", "cow"] },
  ],
];

/** Removes the statistics that the layer reports at each end, which are not errors. */
function withoutStatistics(errors: string): string {
  return errors.replaceAll(/^stats: .*\n/gm, "");
}

/** The number of completed reads and writes. */
function completed(node: string): number {
  const stat = readFileSync(`/sys/block/${node.slice("/dev/".length)}/stat`, "utf8");
  const fields = stat.trim().split(/\s+/).map(Number);
  return (fields[0] ?? 0) + (fields[4] ?? 0);
}

/** `scripts/pause` does a hundred. */
const ROUNDS = 2;

test.each(KINDS)(
  "%s: handed over again and again under fio: no error, no mismatch",
  async (_, { node, words, options = [], survivesKill }) => {
    await sh(`truncate -s 16M ${FILE}; dmesg -C`);
    let server = await Server.start(...words, node, ...options);
    for (let round = 1; round <= ROUNDS; round += 1) {
      const before = completed(node);
      const job = ["--bs=4k", "--size=16M", "--iodepth=32", `--randseed=${round}`];
      let isOver = false;
      const load = fio(node, ...job, ...VERIFY).finally(() => (isOver = true));
      await until(`fio is at work in round ${round}`, () => completed(node) > before + 700, 60_000);
      expect(isOver).toBe(false);
      const next = await Server.start("handover", node, ...words);
      expect(next.path).toBe(node);
      expect(await server.ended()).toBe(0);
      expect(withoutStatistics(await server.errors)).toBe("");
      server = next;
      expect(await load).toMatchObject({ errors: 0, messages: "" });
    }
    expect(await sh("dmesg")).not.toMatch(/I\/O error|WARNING|BUG:/);
    if (survivesKill === true) {
      const bytes = pattern(MIB, 3);
      expect(writeDirect(node, 0, bytes)).toBe(MIB);
      await server.stop("SIGKILL");
      server = await Server.start("recover", node, ...words);
      expect(readDirect(node, 0, MIB)).toEqual(bytes);
    } else if (node === NBD) {
      // The guardian is still the first server's.
      await server.stop("SIGKILL");
      return untilFree("nbd0");
    }
    expect(await server.stop()).toBe(0);
    if (node === UBLK) expect(devices()).toEqual([]);
    else await untilFree("nbd0");
  },
  240_000,
);

test.each(KINDS)(
  "%s: served on when the next server is killed after each step",
  async (_, { node, words, options = [], leaves }) => {
    await sh(`truncate -s 16M ${FILE}; dmesg -C`);
    const server = await Server.start(...words, node, ...options);
    const bytes = pattern(MIB, 7);
    expect(writeDirect(node, 0, bytes)).toBe(MIB);
    for (const step of ["begin", "release"]) {
      const program = join(import.meta.dir, "../support/half-handed-over.ts");
      const half = Bun.spawn([process.execPath, program, node, step], { stdin: "ignore", stdout: "pipe" });
      const how = step === "begin" ? "" : leaves === true ? "leaves" : "stays";
      expect(await half.stdout.text()).toBe(how);
      expect(await half.exited).toBe(137);
      if (how !== "leaves") expect(readDirect(node, 0, MIB)).toEqual(bytes);
    }
    if (leaves === true) expect(await server.ended()).toBe(0);
    await using next = await Server.start(leaves === true ? "recover" : "handover", node, ...words);
    expect(await server.ended()).toBe(0);
    expect(readDirect(node, 0, MIB)).toEqual(bytes);
    expect(await next.stop()).toBe(0);
    expect(await sh("dmesg")).not.toMatch(/I\/O error|WARNING|BUG:/);
  },
);

test.each([UBLK, NBD])("what cannot be handed over is refused, and served on: %s", async (node) => {
  await sh(`truncate -s 16M ${FILE}`);
  const server = await Server.start("loop", FILE, node, "--recover");
  expect(await refusal("handover", node, "loop", "/mnt/none.img")).toContain("/mnt/none.img does not exist");
  expect(await refusal("handover", node, "loop", FILE, "--size", "8M")).toContain(`${node} has ${16 * MIB}`);
  expect(await refusal("handover", node, "deadbeef", "16M")).toContain("is of loop:");
  expect(await refusal("handover", node, ...RAMDISK)).toContain("no RAM disk with --handover");
  expect(await refusal("handover", `${node}9`, "loop", FILE)).toContain("no process of tsbuse serves");
  {
    using other = await connectToServer(node);
    await other.ask("handover-begin", { protocol: 1 });
    expect(await refusal("handover", node, "loop", FILE)).toContain("is being taken over by another process");
    expect(await refusal("resize", node)).toContain("is being taken over by another process");
  }
  process.kill(server.pid, "SIGSTOP");
  expect(await refusal("handover", node, "loop", FILE)).toContain("it is stopped");
  process.kill(server.pid, "SIGCONT");
  expect(writeDirect(node, 0, pattern(4096, 5))).toBe(4096);
  expect(await server.stop()).toBe(0);
});

test("what would lose its data on the way is refused", async () => {
  await sh(`truncate -s 16M ${FILE}`);
  const other = await Server.start("loop", FILE, UBLK);
  expect(await refusal("handover", UBLK, "loop", FILE)).toContain(`${UBLK} cannot be handed over`);
  expect(await other.stop()).toBe(0);
  for (const words of [RAMDISK, ["loop", FILE, "--layer", "cow", "--handover"]])
    expect(await refusal(...words, "--layer", "delay:flush=1", UBLK)).toContain("give /dev/nbd0");
});

test.each([UBLK, NBD])("changes in memory go on over their own device alone: %s", async (node) => {
  await sh(`truncate -s 16M ${FILE}; printf x >${FILE}.other; truncate -s 16M ${FILE}.other`);
  const server = await Server.start("loop", FILE, node, "--layer", "cow", "--handover");
  const bytes = pattern(MIB, 9);
  expect(writeDirect(node, 4096, bytes)).toBe(MIB);
  const refused = [
    [["loop", FILE], "in memory"],
    [["loop", FILE, "--layer", "cow", "--layer", "cow"], "keeps nothing in memory for the layer cow"],
    [["loop", `${FILE}.other`, "--layer", "cow"], "changes of another device"],
    [RAMDISK, "no RAM disk with --handover"],
  ] as const;
  for (const [words, message] of refused) {
    expect(await refusal("handover", node, ...words)).toContain(message);
    expect(readDirect(node, 4096, MIB)).toEqual(bytes);
  }
  expect(await server.stop()).toBe(0);
});
