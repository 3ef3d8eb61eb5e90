/**
 * What it costs to return promises: one store in memory, served by the tight pump when its methods return nothing
 * and by the event pump when they return promises that are resolved already; and how many requests a device serves
 * that sleeps over each. On a socket pair, with the client of the native benchmark.
 */
import type { BlockDevice } from "../../src/device.ts";
import { Dispatch } from "../../src/dispatch.ts";
import { close } from "../../src/libc/file.ts";
import { setSendBuffer, streamSocketPair } from "../../src/libc/socket.ts";
import { makePump, type PumpKind } from "../../src/nbd/pump.ts";
import { NBD_CMD_READ, NBD_CMD_WRITE } from "../../src/uapi/nbd.ts";
import { runClient, type Workload } from "./bench-client.ts";
import { formatTable, median, medianRatio } from "./statistics.ts";

const SIZE = 64 * 2 ** 20;
const SLEEP_MS = 10;

const WORKLOADS = [
  { name: "4k random read, depth 32", command: NBD_CMD_READ, length: 4096, depth: 32, count: 100_000 },
  { name: "4k random write, depth 32", command: NBD_CMD_WRITE, length: 4096, depth: 32, count: 100_000 },
] as const;

const SLEEPING = { command: NBD_CMD_READ, length: 4096, depth: 64, count: 10_000 };

function synchronousStore(): BlockDevice {
  const bytes = new Uint8Array(SIZE);
  return {
    size: SIZE,
    read: (target, offset) => target.set(bytes.subarray(offset, offset + target.length)),
    write: (source, offset) => bytes.set(source, offset),
  };
}

function asynchronousStore(): BlockDevice {
  const store = synchronousStore();
  return {
    size: SIZE,
    read: async (target, offset) => store.read(target, offset),
    write: async (source, offset, options) => store.write?.(source, offset, options),
  };
}

function sleepingDevice(): BlockDevice {
  return {
    size: SIZE,
    read: async (target) => {
      await Bun.sleep(SLEEP_MS);
      target.fill(0);
    },
  };
}

async function measure(kind: PumpKind, device: BlockDevice, workload: Workload): Promise<number> {
  const [ours, theirs] = streamSocketPair();
  for (const fd of [ours, theirs]) setSendBuffer(fd, 4 * 2 ** 20);
  const pump = makePump(kind, ours, new Dispatch(device), {});
  const result = runClient(theirs, SIZE, workload);
  await pump.run();
  pump.close();
  close(ours);
  return result;
}

/** Prints a table, and a line for the device that sleeps. */
export async function benchAsync(rounds: number): Promise<void> {
  const rows = [["requests per second", "promises", "synchronous", "ratio"]];
  for (const workload of WORKLOADS) {
    const promised: number[] = [];
    const direct: number[] = [];
    // The first round warms both up, and is not counted.
    for (let round = 0; round <= rounds; round += 1) {
      const event = await measure("event", asynchronousStore(), workload);
      const tight = await measure("tight", synchronousStore(), workload);
      if (round > 0) promised.push(event);
      if (round > 0) direct.push(tight);
    }
    const ratio = medianRatio(promised, direct).toFixed(2);
    rows.push([workload.name, median(promised).toFixed(0), median(direct).toFixed(0), ratio]);
  }
  console.log(formatTable(rows));
  const sleeping = await measure("event", sleepingDevice(), SLEEPING);
  console.log(
    `a device that sleeps ${SLEEP_MS} ms over each, depth ${SLEEPING.depth}: ${sleeping.toFixed(0)}`,
  );
}
