/**
 * The native benchmark: no kernel driver, one client on another thread, the request loop of tsbuse on a socket pair
 * beside nbdkit's memory plugin on a Unix socket. Prints the medians of the rounds and the median ratio.
 */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Ramdisk } from "../../devices/ramdisk.ts";
import { Dispatch } from "../../src/dispatch.ts";
import { close } from "../../src/libc/file.ts";
import { setReceiveTimeout, setSendBuffer, streamSocketPair } from "../../src/libc/socket.ts";
import { Connection } from "../../src/nbd/connection.ts";
import { NBD_CMD_READ, NBD_CMD_WRITE } from "../../src/uapi/nbd.ts";
import { runClient, type Workload } from "./bench-client.ts";
import { connectNbdkit } from "./bench-nbdkit.ts";
import { formatTable, median, medianRatio } from "./statistics.ts";

const SIZE = 256 * 2 ** 20;
const START_LIMIT_MS = 10_000;

const WORKLOADS = [
  { name: "4k random read, depth 1", command: NBD_CMD_READ, length: 4096, depth: 1, count: 40_000 },
  { name: "4k random write, depth 1", command: NBD_CMD_WRITE, length: 4096, depth: 1, count: 40_000 },
  { name: "4k random read, depth 32", command: NBD_CMD_READ, length: 4096, depth: 32, count: 200_000 },
  { name: "4k random write, depth 32", command: NBD_CMD_WRITE, length: 4096, depth: 32, count: 200_000 },
  { name: "128k random read, depth 8", command: NBD_CMD_READ, length: 131_072, depth: 8, count: 10_000 },
  { name: "128k random write, depth 8", command: NBD_CMD_WRITE, length: 131_072, depth: 8, count: 10_000 },
] as const;

async function measureTsbuse(device: Ramdisk, workload: Workload): Promise<number> {
  const [ours, theirs] = streamSocketPair();
  for (const fd of [ours, theirs]) setSendBuffer(fd, 4 * 2 ** 20);
  setReceiveTimeout(ours, 10);
  const connection = new Connection(ours, new Dispatch(device));
  const result = runClient(theirs, SIZE, workload);
  while (connection.run() === "turn") await new Promise((resolve) => setImmediate(resolve));
  close(ours);
  connection.close();
  return result;
}

async function startNbdkit(socket: string): Promise<Bun.Subprocess> {
  const server = Bun.spawn(["nbdkit", "--foreground", "--unix", socket, "memory", String(SIZE)], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  const deadline = performance.now() + START_LIMIT_MS;
  while (!existsSync(socket)) {
    if (performance.now() > deadline) throw new Error("nbdkit does not listen");
    await Bun.sleep(10);
  }
  return server;
}

/** Prints the table. */
export async function benchNative(rounds: number): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "tsbuse-bench-"));
  const socket = join(directory, "nbdkit.sock");
  const nbdkit = await startNbdkit(socket);
  const device = new Ramdisk(SIZE);
  try {
    const rows = [["requests per second", "tsbuse", "nbdkit", "ratio"]];
    for (const workload of WORKLOADS) {
      const our: number[] = [];
      const their: number[] = [];
      // The first round warms both up, and is not counted.
      for (let round = 0; round <= rounds; round += 1) {
        const ours = await measureTsbuse(device, workload);
        const theirs = await runClient(connectNbdkit(socket), SIZE, workload);
        if (round > 0) our.push(ours);
        if (round > 0) their.push(theirs);
      }
      rows.push([
        workload.name,
        median(our).toFixed(0),
        median(their).toFixed(0),
        medianRatio(our, their).toFixed(2),
      ]);
    }
    console.log(formatTable(rows));
  } finally {
    nbdkit.kill();
    await nbdkit.exited;
    device.close();
    rmSync(directory, { recursive: true });
  }
}
