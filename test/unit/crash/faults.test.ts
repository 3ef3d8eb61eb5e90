/**
 * Goal: a program or layer that does not survive a power failure is found, with the fewest writes that show it; one
 * that survives passes. The program appends numbers: each to its own sector, and then their count to sector 0.
 */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { Ramdisk } from "../../../devices/ramdisk.ts";
import { Contents } from "../../../src/crash/contents.ts";
import { explore } from "../../../src/crash/explore.ts";
import { describeWrite } from "../../../src/crash/fault.ts";
import { historyOf } from "../../../src/crash/history.ts";
import type { BlockDevice } from "../../../src/device.ts";
import { applyLayers, type Layer } from "../../../src/layers/layer.ts";
import { markRecords, recordLayer } from "../../../src/layers/record.ts";
import { SECTOR } from "../../../src/record/format.ts";
import { readRecord } from "../../../src/record/reader.ts";
import { TemporaryDirectory } from "../../support/temporary.ts";

const SIZE = 64 * SECTOR;

let directory: TemporaryDirectory;
beforeEach(() => void (directory = new TemporaryDirectory()));
afterEach(() => directory[Symbol.dispose]());

/** Its checker's rule: as many numbers as the count says, and no fewer than were acknowledged. */
const CHECK = `number() { tail -c +$(($1 * ${SECTOR} + 1)) "$TSBUSE_IMAGE" | head -c 2 | tr -d '\\0'; }
count=$(number 0)
[ "\${count:-0}" -ge "\${TSBUSE_MARK:-0}" ] || { echo "only $count of $TSBUSE_MARK"; exit 1; }
for at in $(seq \${count:-0}); do [ "$(number $at)" = "$at" ] || { echo "number $at is not there"; exit 1; }; done`;

function sector(text: string): Uint8Array {
  const bytes = new Uint8Array(SECTOR);
  bytes.set(Buffer.from(text));
  return bytes;
}

/** A disk with a cache: it needs flushes, and FUA is native. */
function disk(): BlockDevice {
  const below = new Ramdisk(SIZE);
  return {
    size: SIZE,
    fua: "native",
    read: (target, offset) => below.read(target, offset),
    write: (source, offset) => below.write(source, offset),
    flush: () => undefined,
  };
}

type Program = (device: BlockDevice) => Promise<void>;

interface Steps {
  readonly betweenFlush: boolean;
  readonly endFlush: boolean;
  readonly fua: boolean;
}

function program({ betweenFlush, endFlush, fua }: Steps): Program {
  return async (device) => {
    for (let count = 1; count <= 8; count += 1) {
      await device.write?.(sector(String(count)), count * SECTOR, { fua: false });
      if (betweenFlush) await device.flush?.();
      await device.write?.(sector(String(count)), 0, { fua });
      if (endFlush) await device.flush?.();
      markRecords(String(count));
    }
  };
}

const CAREFUL: Steps = { betweenFlush: true, endFlush: true, fua: false };

/** Passes everything on except flushes, which it claims are done. */
const liar: Layer = (device) => ({ ...device, flush: () => undefined });
/** Passes writes on without FUA. */
const forgetful: Layer = (device) => ({
  ...device,
  write: (source, offset) => device.write?.(source, offset, { fua: false }),
});
/** Lets FUA writes overtake writes that were flushed before. */
const hasty: Layer = (device) => {
  const held: (() => void | Promise<void>)[] = [];
  return {
    ...device,
    write: async (source, offset, { fua }) => {
      const copy = source.slice();
      if (!fua) return void held.push(() => device.write?.(copy, offset, { fua }));
      await device.write?.(copy, offset, { fua });
      for (const each of held.splice(0)) await each();
    },
  };
};

/** The finding in the states of a record, with a fixed seed. */
async function explored(path: string, command: string, shrinkTime: number) {
  const record = readRecord(path);
  const history = historyOf(record);
  const contents = new Contents(record.bytes, history.changes, undefined);
  const checker = { command };
  const exploration = await explore(
    { history, contents, size: SIZE, checker, timeoutMs: 60_000, directory: directory.path },
    {
      seed: 1,
      from: 0,
      unit: 1,
      first: 1,
      last: 200,
      jobs: 2,
      deadline: Infinity,
      shrinkTime,
      signal: new AbortController().signal,
      progress: () => undefined,
    },
  );
  return { ...exploration, record };
}

test.each([
  ["a careful program", CAREFUL, [], undefined, []],
  ["a careful program that forces its count", { ...CAREFUL, endFlush: false, fua: true }, [], undefined, []],
  [
    "no flush between a number and the count",
    { ...CAREFUL, betweenFlush: false },
    [],
    /number \d is not/,
    ["number"],
  ],
  ["no flush at the end", { ...CAREFUL, endFlush: false }, [], /only .* of/, ["count"]],
  ["a layer that lies about flushes", CAREFUL, [liar], /only {2}of 1|number 1 is not/, ["number", "count"]],
  [
    "a layer that forgets FUA",
    { ...CAREFUL, endFlush: false, fua: true },
    [forgetful],
    /only .* of/,
    ["count"],
  ],
  [
    "a layer that reorders FUA",
    { ...CAREFUL, endFlush: false, fua: true },
    [hasty],
    /number \d is not/,
    ["number"],
  ],
] as const)("%s", async (_, steps, layers, says, lost) => {
  const path = directory.join("record");
  const device = applyLayers(disk(), [...layers, recordLayer({ file: path })]);
  await program(steps)(device);
  await device.close?.();
  const { record, found, isComplete } = await explored(path, CHECK, 60_000);
  if (says === undefined) {
    expect(found).toBeUndefined();
    expect(isComplete).toBe(true);
    return;
  }
  expect(found?.finding.output).toMatch(says);
  const writes = found?.fault?.writes ?? [];
  expect(found?.fault?.kind).toBe("lost");
  expect(writes).toHaveLength(1);
  const [write] = writes;
  const text = write === undefined ? "" : describeWrite(write, record.bytes);
  const isCount = (write?.change.first ?? -1) === 0;
  expect(lost).toContain(isCount ? "count" : "number");
  expect(text).toStartWith(`write of 512 bytes at ${(write?.change.first ?? 0) * SECTOR}: 3`);
});

test("a checker that takes as long as there is for making a finding smaller is asked again all the same", async () => {
  const path = directory.join("record");
  const device = applyLayers(disk(), [recordLayer({ file: path })]);
  await program(CAREFUL)(device);
  await device.close?.();
  const { found } = await explored(path, '[ -z "$(tr -d "\\0" < "$TSBUSE_IMAGE")" ]', 0);
  expect(found?.fault?.finding.reason).toBe("the checker exits with status 1");
});
