#!/usr/bin/env bun
/**
 * How long users of a device wait when it goes on to another process: `scripts/vm -- bun scripts/pause.ts [ROUNDS]`.
 * A program writes a block after the other, around the page cache; the pause is the longest time that one of them took.
 * Beside handovers, a server that is killed and recovered.
 */
import { close, open, pwrite } from "../src/libc/file.ts";
import { Memory } from "../src/libc/memory.ts";
import { unwrap } from "../src/libc/errno.ts";
import { O_DIRECT, O_RDWR } from "../src/uapi/fcntl.ts";
import { Failure } from "./lib/failure.ts";

const TSBUSE = new URL("../dist/tsbuse", import.meta.url).pathname;
const NODE = "/dev/ublkb0";
const FILE = "/mnt/pause.img";
const BYTES = 16 * 2 ** 20;
const BLOCK = 4096;
/** How long it is written before and after, in milliseconds. */
const MARGIN_MS = 200;

interface Kind {
  readonly name: string;
  readonly start: readonly string[];
  readonly next: readonly string[];
  readonly signal: "SIGKILL" | undefined;
}

const LOOP = ["loop", FILE];
const RAMDISK = ["ramdisk", String(BYTES)];
const KINDS: readonly Kind[] = [
  {
    name: "handover of a file",
    start: [...LOOP, NODE, "--recover"],
    next: ["handover", NODE, ...LOOP],
    signal: undefined,
  },
  {
    name: "handover of a RAM disk",
    start: [...RAMDISK, NODE, "--handover"],
    next: ["handover", NODE, ...RAMDISK],
    signal: undefined,
  },
  {
    name: "kill -9 and recover of a file",
    start: [...LOOP, NODE, "--recover"],
    next: ["recover", NODE, ...LOOP],
    signal: "SIGKILL",
  },
];

type Server = Bun.Subprocess<"ignore", "pipe", "inherit">;

/** Starts tsbuse, and waits until it has printed the path. */
async function start(words: readonly string[]): Promise<Server> {
  const server = Bun.spawn([TSBUSE, ...words], { stdin: "ignore", stdout: "pipe", stderr: "inherit" });
  const { done } = await server.stdout.getReader().read();
  if (done) throw new Failure(`tsbuse ${words.join(" ")} has failed`);
  return server;
}

/** Writes until stdin ends, and then prints the longest time that a write took, in milliseconds. */
async function write(): Promise<void> {
  const fd = unwrap(open(NODE, O_RDWR | O_DIRECT), `open ${NODE}`);
  const block = new Memory(BLOCK).bytes();
  let worst = 0;
  const input = { isOver: false };
  void Bun.stdin.text().then(() => (input.isOver = true));
  for (let at = 0; !input.isOver; at = (at + BLOCK) % BYTES) {
    const began = performance.now();
    unwrap(pwrite(fd, block, at), `write to ${NODE}`);
    worst = Math.max(worst, performance.now() - began);
    await Bun.sleep(0);
  }
  close(fd);
  console.log(worst);
}

/** The pause of one round, and the server after it. */
async function round(server: Server, { next, signal }: Kind): Promise<{ pause: number; server: Server }> {
  const writer = Bun.spawn([process.execPath, import.meta.path, "write"], { stdin: "pipe", stdout: "pipe" });
  await Bun.sleep(MARGIN_MS);
  if (signal !== undefined) server.kill(signal);
  const successor = await start(next);
  await server.exited;
  await Bun.sleep(MARGIN_MS);
  await writer.stdin.end();
  const pause = Number(await writer.stdout.text());
  if ((await writer.exited) !== 0) throw new Failure("a write has failed");
  return { pause, server: successor };
}

async function measure(kind: Kind, rounds: number): Promise<string> {
  await Bun.$`truncate -s ${BYTES} ${FILE}`;
  let server = await start(kind.start);
  const pauses: number[] = [];
  for (let count = 0; count < rounds; count += 1) {
    const done = await round(server, kind);
    server = done.server;
    pauses.push(done.pause);
  }
  server.kill("SIGTERM");
  await server.exited;
  const sorted = pauses.toSorted((a, b) => a - b);
  const [median = 0, worst = 0] = [sorted[Math.floor(rounds / 2)], sorted.at(-1)];
  return `${kind.name}: ${rounds} times, pause ${median.toFixed(0)} ms (median), ${worst.toFixed(0)} ms (worst)`;
}

if (process.argv[2] === "write") {
  await write();
} else {
  const rounds = Number(process.argv[2] ?? 100);
  for (const kind of KINDS) console.log(await measure(kind, rounds));
}
