#!/usr/bin/env bun
/**
 * How long users of a device wait when another process takes it over, on both drivers, or on one node alone:
 * `scripts/vm -- bun scripts/pause.ts [ROUNDS [NODE]]`. A program writes block after block, around the page cache, and
 * after each write reads and compares an earlier block; the pause is the longest time that one request took. It
 * measures handovers, and for comparison a server that is killed and recovered.
 */
import { close, open, pread, pwrite } from "../src/libc/file.ts";
import { Memory } from "../src/libc/memory.ts";
import { unwrap } from "../src/libc/errno.ts";
import { O_DIRECT, O_RDWR } from "../src/uapi/fcntl.ts";
import { Failure } from "./lib/failure.ts";

const TSBUSE = new URL("../dist/tsbuse", import.meta.url).pathname;
const NODES = ["/dev/ublkb0", "/dev/nbd0"] as const;
const FILE = "/mnt/pause.img";
const BYTES = 16 * 2 ** 20;
const BLOCK = 4096;
/** How long the program writes before and after, in milliseconds. */
const MARGIN_MS = 200;

interface Kind {
  readonly name: string;
  readonly node: string;
  readonly start: readonly string[];
  readonly next: readonly string[];
  readonly signal: "SIGKILL" | undefined;
}

const LOOP = ["loop", FILE];
const RAMDISK = ["ramdisk", String(BYTES)];
const KINDS: readonly Kind[] = NODES.flatMap((node) => [
  {
    name: `handover of a file on ${node}`,
    node,
    start: [...LOOP, node, "--recover"],
    next: ["handover", node, ...LOOP],
    signal: undefined,
  },
  {
    name: `handover of a RAM disk on ${node}`,
    node,
    start: [...RAMDISK, node, "--handover"],
    next: ["handover", node, ...RAMDISK],
    signal: undefined,
  },
  {
    name: `kill -9 and recover of a file on ${node}`,
    node,
    start: [...LOOP, node, "--recover"],
    next: ["recover", node, ...LOOP],
    signal: "SIGKILL",
  },
]);

type Server = Bun.Subprocess<"ignore", "pipe", "inherit">;

/** Starts tsbuse, and waits until it has printed the path. */
async function start(words: readonly string[]): Promise<Server> {
  const server = Bun.spawn([TSBUSE, ...words], { stdin: "ignore", stdout: "pipe", stderr: "inherit" });
  const { done } = await server.stdout.getReader().read();
  if (done) throw new Failure(`tsbuse ${words.join(" ")} failed: see above`);
  return server;
}

/** Writes and reads until stdin ends, and then prints the longest time that either took, in milliseconds. */
async function write(node: string): Promise<void> {
  const fd = unwrap(open(node, O_RDWR | O_DIRECT), `open ${node}`);
  const block = new Memory(BLOCK).bytes();
  const stamp = new Uint32Array(block.buffer, block.byteOffset, BLOCK / Uint32Array.BYTES_PER_ELEMENT);
  /** The last value written to each block; 0 for none. */
  const written = new Uint32Array(BYTES / BLOCK);
  let worst = 0;
  let count = 0;
  const input = { isOver: false };
  void Bun.stdin.text().then(() => (input.isOver = true));
  const timed = (call: () => number, what: string): void => {
    const began = performance.now();
    unwrap(call(), `${what} ${node}`);
    worst = Math.max(worst, performance.now() - began);
  };
  for (let at = 0; !input.isOver; at = (at + BLOCK) % BYTES) {
    count += 1;
    stamp.fill(count);
    written[at / BLOCK] = count;
    timed(() => pwrite(fd, block, at), "write to");
    const before = Math.floor(Math.random() * written.length);
    timed(() => pread(fd, block, before * BLOCK), "read from");
    const expected = written[before] ?? 0;
    if (expected !== 0 && stamp.some((word) => word !== expected))
      throw new Failure(`block ${before} of ${node} is not what was written`);
    await Bun.sleep(0);
  }
  close(fd);
  console.log(worst);
}

/** The pause of one round, and the server after it. */
async function round(
  server: Server,
  { node, next, signal }: Kind,
): Promise<{ pause: number; server: Server }> {
  const writer = Bun.spawn([process.execPath, import.meta.path, "write", node], {
    stdin: "pipe",
    stdout: "pipe",
  });
  await Bun.sleep(MARGIN_MS);
  if (signal !== undefined) server.kill(signal);
  const successor = await start(next);
  await server.exited;
  await Bun.sleep(MARGIN_MS);
  await writer.stdin.end();
  const pause = Number(await writer.stdout.text());
  if ((await writer.exited) !== 0) throw new Failure("a write or a read failed: see above");
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
  // A server that ends leaves a recoverable device attached if it may be in use, which a busy machine cannot rule out.
  await Bun.$`${TSBUSE} disconnect ${kind.node} --force`.quiet().nothrow();
  const sorted = pauses.toSorted((a, b) => a - b);
  const [median = 0, worst = 0] = [sorted[Math.floor(rounds / 2)], sorted.at(-1)];
  return `${kind.name}: ${rounds} times, pause ${median.toFixed(0)} ms (median), ${worst.toFixed(0)} ms (worst)`;
}

if (process.argv[2] === "write") {
  await write(process.argv[3] ?? "");
} else {
  const rounds = Number(process.argv[2] ?? 100);
  const kinds = KINDS.filter(({ node }) => process.argv[3] === undefined || process.argv[3] === node);
  for (const kind of kinds) console.log(await measure(kind, rounds));
}
