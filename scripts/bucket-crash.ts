#!/usr/bin/env bun
/**
 * Checks states of a bucket whose writer was killed under ext4 and SQLite, any number of them. In the virtual machine
 * it records both on a disk in a bucket, with the kernel's own driver. On this machine a writer repeats the record on a
 * store that notes its PUTs and DELETEs: each state has those that were answered, and any part of those that were in
 * flight. Another writer opens it. e2fsck must find no fault, and the database must have every row that was committed.
 * Needs dist/tsbuse, e2fsck and sqlite3.
 *
 *     bun scripts/bucket-crash.ts [--states N] [--minutes N] [--anew] [--from RECORD]
 */
import { Database } from "bun:sqlite";
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { BucketDisk, BucketOptions } from "../devices/bucket/device.ts";
import { openBucket } from "../devices/bucket/open-bucket.ts";
import { Check, type Checker } from "../src/crash/checker.ts";
import { CHECKERS } from "../src/crash/checkers.ts";
import { kind } from "../src/record/format.ts";
import { markText, readRecord, type RecordFile } from "../src/record/reader.ts";
import { Bucket, Client } from "../test/support/bucket.ts";
import { type PutState, Witness } from "../test/support/put-states.ts";
import { chooseSeed, Random } from "../test/support/random.ts";
import { S3Server } from "../test/support/s3-server.ts";

const ROOT = join(import.meta.dir, "..");
const BINARY = join(ROOT, "dist/tsbuse");
const RECORD = join(ROOT, "dist/crash/bucket.record");
const NODE = "/dev/ublkb0";
/** In memory where possible. */
const SCRATCH = existsSync("/dev/shm") ? "/dev/shm" : "/tmp";
const CHECK_MS = 60_000;
const BLOCK_BYTES = 4096;

/** Makes, moves and removes files; each mark is the number of committed rows. */
const PROGRAM = `set -e; node=$TSBUSE_DEVICE; cd /mnt; mkdir -p at
mkfs.ext4 -q $node; mount $node at; cd at
sqlite3 db "create table t (a, b); create index i on t (b)"; sync; ${BINARY} mark $node 0
for i in $(seq 30); do
  mkdir d$i; echo $i > d$i/short; head -c $((i * 3000)) /dev/urandom > d$i/long; ln d$i/short link$i
  [ $((i % 4)) -ne 0 ] || mv d$i e$i; [ $((i % 5)) -ne 0 ] || rm -rf d$((i - 2))
  sqlite3 db "pragma journal_mode = wal; insert into t values ($i, hex(randomblob(2000)))" >/dev/null
  ${BINARY} mark $node $i
done
cd ..; umount at`;

/** Small segments and many checkpoints, so that even a short run has many of each. */
const OPTIONS: BucketOptions = {
  writer: { segmentBlocks: 64, puts: 4, compress: true, idleMs: 100_000 },
  interval: { segments: 6, times: 0, segmentsMax: 6 },
  log: (line) => console.error(line),
};

/** Makes the record, in the guest. */
async function record(): Promise<number> {
  using store = new S3Server();
  const words = ["bucket", "s3://disks/crash", NODE, "--create", "128M", "--layer", `record:file=${RECORD}`];
  const child = Bun.spawn([BINARY, ...words, "--run", PROGRAM], {
    env: { ...process.env, ...store.environment },
    stdio: ["ignore", "inherit", "inherit"],
  });
  return await child.exited;
}

function makeRecord(): void {
  mkdirSync(join(ROOT, "dist/crash"), { recursive: true });
  const inside = [process.execPath, import.meta.path, "--record"];
  const { exitCode } = Bun.spawnSync([join(ROOT, "scripts/vm"), "--timeout", "280", "--", ...inside], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  if (exitCode === 0) return;
  rmSync(RECORD, { force: true });
  console.error("bucket-crash: recording in the virtual machine failed: see above");
  process.exit(1);
}

/** Replays the record. A flush runs beside what follows it, up to the point where it was answered. */
async function replay(file: RecordFile, disk: BucketDisk, marked: (text: string) => void): Promise<void> {
  const flushes = new Map<number, void | Promise<void>>();
  for (const event of file.events) {
    const { offset, length, at, request } = event;
    if (event.kind === kind.write) await disk.write?.(file.bytes.subarray(at, at + length), offset);
    else if (event.kind === kind.zero || event.kind === kind.trim) await disk.trim?.(offset, length);
    else if (event.kind === kind.mark) marked(markText(file, event));
    if (event.kind === kind.flush || event.fua) flushes.set(request, disk.flush?.());
    if (event.kind === kind.done) await flushes.get(request);
  }
  await Promise.all(flushes.values());
}

/** Writes the disk to a file, with its holes. */
async function show(disk: BucketDisk, path: string): Promise<void> {
  const fd = openSync(path, "w");
  ftruncateSync(fd, disk.size);
  const most = 256 * BLOCK_BYTES;
  const bytes = new Uint8Array(most);
  for (let at = 0; at < disk.size;) {
    const [extent] = disk.extents(at, Math.min(most, disk.size - at));
    const length = extent?.length ?? most;
    if (extent?.hole !== true) {
      await disk.read(bytes.subarray(0, length), at);
      writeSync(fd, bytes, 0, length, at);
    }
    at += length;
  }
  closeSync(fd);
}

function checkers(rows: () => number): Checker[] {
  const [ext4, sqlite] = [CHECKERS["ext4"]?.make(""), CHECKERS["sqlite"]?.make("/db")];
  if (ext4 === undefined || sqlite === undefined) throw new Error("a checker is missing");
  const inspect = (directory: string): string | undefined =>
    sqlite.inspect?.(directory) ?? missingRows(join(directory, "database"), rows());
  return [ext4, { command: sqlite.command, inspect }];
}

function missingRows(path: string, expected: number): string | undefined {
  using database = new Database(path);
  const found = database.query<{ count: number }, []>("select count(*) as count from t").get()?.count ?? 0;
  return found < expected ? `${found} rows, and ${expected} were committed` : undefined;
}

/** The fault of a state; undefined if it has none. */
async function judge(state: PutState<number>, directory: string): Promise<string | undefined> {
  const disk = await openBucket(new Client(state.bucket), { ...OPTIONS, writer: { compress: false } });
  const image = join(directory, "disk.img");
  await show(disk, image);
  for (const checker of checkers(() => state.mark)) {
    const check = new Check(checker, directory);
    const finding = await check.run({ image, device: undefined, mark: undefined, timeoutMs: CHECK_MS });
    if (finding !== undefined) return `${finding.reason}\n${finding.output}`;
  }
  return undefined;
}

async function explore(path: string, states: number, minutes: number): Promise<number> {
  const file = readRecord(path);
  const bucket = new Bucket();
  // No row is committed before the first mark, and there may be no file system.
  let rows = -1;
  const seed = chooseSeed("states of a bucket under ext4 and SQLite");
  const random = new Random(seed);
  const client = new Client(bucket, undefined, seed);
  const witness = new Witness(client, bucket, () => rows);
  const disk = await openBucket(witness, { ...OPTIONS, create: file.size });
  let first = 0;
  await replay(file, disk, (text) => {
    if (rows < 0) first = witness.moments;
    rows = Number(text);
  });
  await disk.close();
  console.log(`${witness.moments} moments, from ${first} on; ${bucket.objects.size} objects at the end`);
  const directory = mkdtempSync(join(SCRATCH, "tsbuse-bucket-crash-"));
  const deadline = performance.now() + minutes * 60_000;
  try {
    let tried = 0;
    for (; tried < states && performance.now() < deadline; tried += 1) {
      const moment = first + random.below(witness.moments - first + 1);
      const likelihood = random.pick([0, 0.3, 0.7, 1]);
      const state = witness.stateAt(moment, () => random.fraction() < likelihood);
      const wrong = await judge(state, directory);
      if (wrong === undefined) continue;
      console.log(`state ${tried}, moment ${moment}, ${state.late.length} changes late: ${wrong}`);
      return 1;
    }
    console.log(`${tried} states, no fault found`);
    return 0;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

const { values } = parseArgs({
  options: {
    states: { type: "string", default: "10000" },
    minutes: { type: "string", default: "1000" },
    anew: { type: "boolean" },
    from: { type: "string" },
    record: { type: "boolean" },
  },
});
if (values.record === true) process.exit(await record());
if (values.anew === true) rmSync(RECORD, { force: true });
if (values.from === undefined && !existsSync(RECORD)) makeRecord();
process.exit(await explore(values.from ?? RECORD, Number(values.states), Number(values.minutes)));
