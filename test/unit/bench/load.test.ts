/** The load generator against servers that do nothing but report what they were sent. */
import { beforeAll, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { makeCell } from "../../../scripts/bench/cells.ts";
import { buildLoad, LOAD, measureReady, runLoad } from "../../../scripts/bench/load.ts";
import { until } from "../../support/shell.ts";
import { TemporaryDirectory } from "../../support/temporary.ts";

const SIZE = 2 ** 20;
const EFFORT = { seconds: 0.05, warmSeconds: 0.01, seed: 1 };

beforeAll(buildLoad);

/** The responder from the generator's own file, until it is disposed of. */
async function startNull(directory: TemporaryDirectory) {
  const socket = directory.join("null.sock");
  const child = Bun.spawn([LOAD, "null", socket, String(SIZE)], { stdio: ["ignore", "ignore", "inherit"] });
  await until("it listens", () => existsSync(socket));
  return {
    address: { socket, exportName: "" },
    [Symbol.asyncDispose]: async () => {
      child.kill();
      await child.exited;
    },
  };
}

test("every mode has its requests answered, the largest at the greatest depth as well", async () => {
  using directory = new TemporaryDirectory();
  await using server = await startNull(directory);
  const cells = [
    ...(["randread", "randwrite", "read", "write", "mixed", "trim"] as const).map((mode) =>
      makeCell(mode, 4, 32),
    ),
    makeCell("randread", 4, 1),
    makeCell("mixed", 1024, 128),
  ];
  for (const cell of cells) {
    let connected = false;
    const result = await runLoad(server.address, cell, EFFORT, () => (connected = true));
    expect(connected).toBe(true);
    expect(result?.rate, cell.id).toBeGreaterThan(0);
    expect(result?.total, cell.id).toBeGreaterThanOrEqual(cell.depth);
    expect(result?.p99, cell.id).toBeGreaterThanOrEqual(result?.p50 ?? Number.NaN);
  }
});

test("to fill is to write every block once", async () => {
  using directory = new TemporaryDirectory();
  await using server = await startNull(directory);
  const result = await runLoad(server.address, { mode: "fill", block: 4096, depth: 8 }, EFFORT);
  expect(result?.total).toBe(SIZE / 4096);
});

test("readiness is told of a server, and of none", async () => {
  using directory = new TemporaryDirectory();
  const address = { socket: directory.join("null.sock"), exportName: "" };
  const ms = await measureReady(address, [LOAD, "null", address.socket, String(SIZE)]);
  expect(ms).toBeGreaterThan(0);
  await expect(measureReady({ ...address, socket: directory.join("none") }, ["false"])).rejects.toThrow(
    "ended before",
  );
});

test("a server that is not there is a reason, in one line", async () => {
  const address = { socket: "/nonexistent/socket", exportName: "" };
  await expect(runLoad(address, makeCell("read", 4, 1), EFFORT)).rejects.toThrow(
    "load: connect to /nonexistent/socket: No such file or directory",
  );
});
