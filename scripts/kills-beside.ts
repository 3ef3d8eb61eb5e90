#!/usr/bin/env bun
/**
 * How a mounted file system fares when the server below it is killed and started again, with other tools than tsbuse:
 * `scripts/vm -- bun scripts/kills-beside.ts [KILLS]`. As in scripts/kills, a program writes block after block and
 * syncs each. Prints a line for each tool. The exit status is 0 in any case, because this is a comparison.
 */
import { readFileSync } from "node:fs";
import { firstWrong } from "../test/support/synced-blocks.ts";
import { chooseSeed, Random } from "../test/support/random.ts";
import { sh, until } from "../test/support/shell.ts";
import { describeError } from "./lib/failure.ts";

const FILE = "/mnt/beside.img";
const MOUNT = "/mnt/beside";
const STOP = "/mnt/stop";
const SOCKET = "/run/beside.sock";
/** The longest time between two kills, in milliseconds, as in scripts/kills. */
const PAUSE_MS = 1500;
/** A write that has not continued by then, although the server is back, hangs. */
const HANG_MS = 60_000;

type Child = Bun.Subprocess<"ignore", "ignore", "pipe">;

interface Tool {
  readonly name: string;
  /** Different for each tool: the one before may have left its node hanging. */
  readonly node: string;
  /** The command that is killed and started again. */
  readonly server: readonly string[];
  /** The command that connects the node to the server, run once. */
  readonly client?: string;
  readonly end: string;
}

const TOOLS: readonly Tool[] = [
  {
    name: "nbd-client -persist with nbdkit",
    node: "/dev/nbd0",
    server: ["nbdkit", "-f", "-U", SOCKET, "file", FILE],
    client: `nbd-client -nonetlink -persist -unix ${SOCKET} /dev/nbd0`,
    end: "nbd-client -d /dev/nbd0",
  },
  {
    name: "qemu-nbd",
    node: "/dev/nbd1",
    // Keeps it in the foreground: in the background no kill would reach it.
    server: ["qemu-nbd", "--verbose", "--format=raw", "--socket=/run/qemu.sock", "--connect=/dev/nbd1", FILE],
    end: "qemu-nbd --disconnect /dev/nbd1",
  },
];

function spawn(words: readonly string[]): Child {
  return Bun.spawn([...words], { stdio: ["ignore", "ignore", "pipe"] });
}

function isConnected({ node }: Tool): boolean {
  return Number(readFileSync(`/sys/block/${node.slice("/dev/".length)}/size`, "utf8")) > 0;
}

async function start({ server, client }: Tool, isFirst: boolean): Promise<Child> {
  const child = spawn(server);
  if (client !== undefined && isFirst) {
    await until("the server listens", async () => (await sh(`test -S ${SOCKET} && echo yes || true`)) !== "");
    await sh(`${client} >/dev/null 2>&1`);
  }
  return child;
}

/** Kills and restarts the server `kills` times, or until the writer ends. Returns how often it did. */
async function killAgainAndAgain(tool: Tool, kills: number, first: Child, writer: Child): Promise<number> {
  const random = new Random(chooseSeed(`kills of ${tool.name}`));
  let server = first;
  let done = 0;
  try {
    while (done < kills && writer.exitCode === null) {
      await Bun.sleep(random.below(PAUSE_MS));
      server.kill("SIGKILL");
      await server.exited;
      if (tool.client !== undefined) await sh(`rm -f ${SOCKET}`);
      done += 1;
      server = await start(tool, false);
    }
    return done;
  } finally {
    await sh(`touch ${STOP}`);
    const ended = await Promise.race([writer.exited, Bun.sleep(HANG_MS).then(() => undefined)]);
    if (ended === undefined) console.log(`${tool.name}: a write has hung since kill ${done}`);
    server.kill("SIGKILL");
  }
}

async function compare(tool: Tool, kills: number): Promise<string> {
  // By the hung remains of the tool before, or by a user of this machine.
  if (isConnected(tool)) throw new Error(`${tool.node} is in use: run it by scripts/vm`);
  await sh(`rm -f ${STOP} ${SOCKET}; truncate -s 128M ${FILE}; mkdir -p ${MOUNT}`);
  const server = await start(tool, true);
  await until(`${tool.node} is connected`, () => isConnected(tool));
  await sh(`mkfs.ext4 -q ${tool.node}; mount ${tool.node} ${MOUNT}; dmesg -C`);
  const program = new URL("../test/support/fsync-writer.ts", import.meta.url).pathname;
  const output = `${FILE}.out`;
  const words = ["sh", "-c", `exec ${process.execPath} ${program} ${MOUNT}/synced ${STOP} >${output}`];
  const writer = spawn(words);
  await until(
    "a block is written",
    async () => (await sh(`test -s ${MOUNT}/synced && echo yes || true`)) !== "",
  );
  const done = await killAgainAndAgain(tool, kills, server, writer);
  if (writer.exitCode === null) return `${tool.name}: hangs after kill ${done} of ${kills}`;
  const errors = (await sh("dmesg")).match(/I\/O error/g)?.length ?? 0;
  const beside = `${errors} I/O errors in the kernel's log`;
  if (writer.exitCode !== 0) {
    const cause = /\bE[A-Z]+: [^\n]*/.exec(await writer.stderr.text())?.[0] ?? "a write failed";
    return `${tool.name}: the file system failed at kill ${done} of ${kills} (${cause}), ${beside}`;
  }
  const { synced, longestMs } = JSON.parse(readFileSync(output, "utf8"));
  const wrong = firstWrong(readFileSync(`${MOUNT}/synced`), synced);
  const lost = wrong === undefined ? "no synced byte lost" : `block ${wrong} is lost`;
  return `${tool.name}: ${done} kills, the slowest of ${synced} writes took ${longestMs | 0} ms, ${lost}, ${beside}`;
}

const kills = Number(Bun.argv[2] ?? 100);
await sh("modprobe nbd || true");
for (const tool of TOOLS) {
  console.log(await compare(tool, kills).catch((error: unknown) => `${tool.name}: ${describeError(error)}`));
  // Leaves what hangs until the machine ends.
  const clean = `umount -l ${MOUNT}; ${tool.end}; rm -f ${FILE}`;
  await sh(`timeout 20 sh -c '${clean}' >/dev/null 2>&1 || true`);
}
// A process in the kernel may wait for its device for ever.
process.exit(0);
