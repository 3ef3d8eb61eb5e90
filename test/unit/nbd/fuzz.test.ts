/** Goal: 300,000 malformed inputs, always the same ones, do no harm to the handshake and the request parser. */
import { expect, test } from "bun:test";
import { Fuzzer } from "../../../scripts/lib/fuzz.ts";
import { memoryUse } from "../../support/memory-use.ts";

const SEED = 20_260;
const INPUTS = 300_000;
const MIB = 2 ** 20;

test("300,000 malformed inputs: no crash, no hang, no growth", async () => {
  const fuzzer = new Fuzzer(SEED);
  await fuzzer.run(INPUTS / 10);
  Bun.gc(true);
  const before = memoryUse().resident;
  await fuzzer.run((INPUTS * 9) / 10);
  Bun.gc(true);
  expect(memoryUse().resident - before).toBeLessThan(64 * MIB);
  const { inputs, verdicts, requests, errors, broken } = fuzzer.counts;
  expect(inputs).toBe(INPUTS);
  // Each way through has been taken, and often.
  for (const [verdict, times] of Object.entries(verdicts)) expect(times, verdict).toBeGreaterThan(3000);
  expect(requests - errors).toBeGreaterThan(3000);
  expect(errors).toBeGreaterThan(1500);
  expect(broken).toBeGreaterThan(300);
}, 120_000);
