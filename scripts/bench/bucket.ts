#!/usr/bin/env bun
/**
 * Compares a disk in a bucket with s3backer and with the store itself, one Ceph gateway with its data in memory. Prints
 * a table, and with --keep writes it to the page. Needs dist/tsbuse, root, and Debian's fio, s3backer,
 * qemu-system-common, radosgw, ceph-mon and ceph-osd. Whatever is compared runs in turns.
 *
 *     bun scripts/bench/bucket.ts [ROUNDS] [--keep]
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { openBucket } from "../../devices/bucket/open-bucket.ts";
import { S3Store } from "../../devices/bucket/s3.ts";
import { overwrite } from "../../test/support/bucket-overwriting.ts";
import { ObjectStoreServer } from "../../test/support/object-store.ts";
import { pattern } from "../../test/support/random.ts";
import { ROOT } from "../lib/suites.ts";
import {
  type Access,
  type Job,
  makeFileSystem,
  runFio,
  s3backer,
  type Serve,
  tsbuse,
} from "./bucket-contestants.ts";
import { fileAndJournal, msOf, putAndFlush, SYNC_BYTES, SYNCS } from "./bucket-syncs.ts";
import { replaceBetween } from "./report.ts";
import { formatTable, median, spreadOfRatios } from "./statistics.ts";

const MIB = 2 ** 20;
const BUCKET = "bench";
const SIZE = "1G";
const BEGIN = "<!-- made by: bun scripts/bench/bucket.ts --keep -->";
/** The size of the objects that measure the store's own speed: that of a full segment. */
const OBJECT_BYTES = 8 * MIB;
const SEQUENTIAL_BYTES = 192 * MIB;
/** As much as s3backer can write block by block in a bearable time. */
const SMALL_REGION = 16 * MIB;
const RANDOM_BYTES = 64 * MIB;
const RANDOM_BYTES_SLOW = 4 * MIB;
const PARALLEL = 6;

const SYNC: Job = {
  mode: "randwrite",
  blockKib: 4,
  depth: 1,
  region: SMALL_REGION,
  bytes: SYNCS * SYNC_BYTES,
  syncs: true,
};
const WRITE: Job = {
  mode: "write",
  blockKib: 1024,
  depth: 8,
  region: SEQUENTIAL_BYTES,
  bytes: SEQUENTIAL_BYTES,
};
const READ: Job = { ...WRITE, mode: "read" };
const FILL: Job = { mode: "write", blockKib: 4, depth: 32, region: SMALL_REGION, bytes: SMALL_REGION };
const RANDOM_WRITE: Job = {
  mode: "randwrite",
  blockKib: 4,
  depth: 32,
  region: SMALL_REGION,
  bytes: RANDOM_BYTES,
};
const RANDOM_READ: Job = { ...RANDOM_WRITE, mode: "randread", bytes: RANDOM_BYTES_SLOW };

/** One figure for each round, by name. */
class Figures {
  readonly #values = new Map<string, number[]>();

  add(name: string, value: number): void {
    const values = this.#values.get(name) ?? [];
    values.push(value);
    this.#values.set(name, values);
  }

  of(name: string): readonly number[] {
    return this.#values.get(name) ?? [];
  }

  median(name: string, digits = 0): string {
    return median(this.of(name)).toFixed(digits);
  }

  ratio(over: string, under: string): string {
    const { median: middle, min, max } = spreadOfRatios(this.of(over), this.of(under));
    return `${middle.toFixed(2)}  ${min.toFixed(2)}..${max.toFixed(2)}`;
  }
}

class Bench {
  readonly figures = new Figures();
  #number = 0;

  constructor(
    readonly access: Access,
    readonly directory: string,
  ) {}

  async round(): Promise<void> {
    await this.#syncs();
    await this.#sequential();
    await this.#random();
    await this.#fileSystem();
  }

  async #syncs(): Promise<void> {
    const { figures } = this;
    const store = this.#store("put-small");
    const own = this.#store(this.#name());
    const [put, flush] = await putAndFlush(store, own, log);
    figures.add("put ms", put);
    figures.add("device sync ms", flush);
    const journaled = this.#store(this.#name());
    const [file, journal] = await fileAndJournal(journaled, log);
    figures.add("file sync ms", file);
    figures.add("journal sync ms", journal);
    for (const used of [store, own, journaled]) await this.#remove(used);
    figures.add(
      "sync ms",
      await this.#with(tsbuse(this.access), async (disk) => (await runFio(disk, SYNC, this.#seed)).syncMs),
    );
    // Without these options its fsync returns at once, before the data is in the bucket.
    const peer = s3backer(this.access, "4k", ["--blockCacheSync", "--blockCacheWriteDelay=0"]);
    figures.add(
      "peer sync ms",
      await this.#with(peer, async (disk) => (await runFio(disk, SYNC, this.#seed)).syncMs),
    );
  }

  async #sequential(): Promise<void> {
    const { figures } = this;
    const store = this.#store("put-large");
    const body = pattern(OBJECT_BYTES);
    const count = SEQUENTIAL_BYTES / OBJECT_BYTES;
    figures.add("put MiB/s", await rateOf(count, (key) => store.create(key, body)));
    await this.#device();
    const serve = tsbuse(this.access);
    const name = this.#name();
    {
      await using disk = await serve(name, this.directory, SIZE, true);
      figures.add("write MiB/s", rateIn(WRITE, (await runFio(disk, WRITE, this.#seed)).seconds));
      figures.add("write memory", disk.peakBytes() / MIB);
    }
    const objects = await this.#count(this.#store(name));
    figures.add("puts per GiB", objects / (WRITE.bytes / 2 ** 30));
    figures.add("get MiB/s", await rateOf(count, (key) => store.get(key, 0, OBJECT_BYTES)));
    {
      // As on another machine, which has no state of the disk.
      await using disk = await serve(name, this.directory, SIZE, false);
      figures.add("attach ms", disk.readyMs);
      figures.add("read MiB/s", rateIn(READ, (await runFio(disk, READ, this.#seed)).seconds));
      figures.add("read memory", disk.peakBytes() / MIB);
    }
    await this.#remove(store);
    await this.#remove(this.#store(name));
    const peer = s3backer(this.access, "1M");
    const other = this.#name();
    {
      const begun = performance.now();
      const disk = await peer(other, this.directory, SIZE, true);
      await runFio(disk, WRITE, this.#seed);
      await disk[Symbol.asyncDispose]();
      figures.add("peer write MiB/s", rateIn(WRITE, (performance.now() - begun) / 1000));
    }
    await using disk = await peer(other, this.directory, SIZE, false);
    figures.add("peer read MiB/s", rateIn(READ, (await runFio(disk, READ, this.#seed)).seconds));
  }

  /** Measures the device in this process, without a socket and without fio. */
  async #device(): Promise<void> {
    const store = this.#store(this.#name());
    const request = pattern(MIB);
    const count = SEQUENTIAL_BYTES / MIB;
    const written = await openBucket(store, { create: 2 ** 30, log });
    const writing = await msOf(async () => {
      await inParallel(8, count, async (at) => written.write?.(request, (at - 1) * MIB));
      await written.flush?.();
    });
    await written.close();
    const read = await openBucket(store, { log });
    const reading = await msOf(() =>
      inParallel(8, count, async (at) => read.read(new Uint8Array(MIB), (at - 1) * MIB)),
    );
    await read.close();
    this.figures.add("device write MiB/s", count / (writing / 1000));
    this.figures.add("device read MiB/s", count / (reading / 1000));
    await this.#remove(store);
  }

  async #random(): Promise<void> {
    const { figures } = this;
    for (const [who, serve, bytes] of [
      ["", tsbuse(this.access), RANDOM_BYTES],
      ["peer ", s3backer(this.access, "4k"), RANDOM_BYTES_SLOW],
    ] as const) {
      const name = this.#name();
      const begun = performance.now();
      const disk = await serve(name, this.directory, SIZE, true);
      await runFio(disk, FILL, this.#seed);
      const filled = performance.now();
      const { seconds } = await runFio(disk, { ...RANDOM_WRITE, bytes }, this.#seed);
      const objects = who === "" ? await this.#count(this.#store(name)) : 0;
      await disk[Symbol.asyncDispose]();
      // When fio ends, s3backer still holds data, which it writes before it ends.
      const all = who === "" ? seconds : (performance.now() - filled) / 1000;
      figures.add(`${who}random writes/s`, bytes / 4096 / all);
      if (who === "") figures.add("random puts per GiB", objects / ((bytes + FILL.bytes) / 2 ** 30));
      else figures.add("peer fill s", (filled - begun) / 1000);
      await using again = await serve(name, this.directory, SIZE, false);
      const read = await runFio(again, RANDOM_READ, this.#seed);
      figures.add(`${who}random reads/s`, RANDOM_READ.bytes / 4096 / read.seconds);
    }
  }

  async #fileSystem(): Promise<void> {
    const name = this.#name();
    await using disk = await tsbuse(this.access)(name, this.directory, "50G", true);
    this.figures.add(
      "mkfs s",
      await makeFileSystem(disk, join(this.directory, `${name}.sock`), this.directory),
    );
  }

  /** A seed for fio, different for each round. */
  get #seed(): number {
    return this.#number;
  }

  #name(): string {
    this.#number += 1;
    return `disk${this.#number}`;
  }

  async #with<T>(serve: Serve, use: (disk: Awaited<ReturnType<Serve>>) => Promise<T>): Promise<T> {
    await using disk = await serve(this.#name(), this.directory, SIZE, true);
    return await use(disk);
  }

  #store(name: string): S3Store {
    const { AWS_ACCESS_KEY_ID = "", AWS_SECRET_ACCESS_KEY = "", AWS_REGION } = this.access.environment;
    return new S3Store({
      bucket: BUCKET,
      prefix: `${name}/`,
      endpoint: this.access.endpoint,
      region: AWS_REGION,
      credentials: { accessKeyId: AWS_ACCESS_KEY_ID, secretAccessKey: AWS_SECRET_ACCESS_KEY },
      log,
    });
  }

  async #count(store: S3Store): Promise<number> {
    let count = 0;
    for await (const _ of store.list("")) count += 1;
    return count;
  }

  async #remove(store: S3Store): Promise<void> {
    const keys: string[] = [];
    for await (const { key } of store.list("")) keys.push(key);
    await Promise.all(keys.map((key) => store.remove(key)));
  }
}

function rateIn({ bytes }: Job, seconds: number): number {
  return bytes / MIB / seconds;
}

/** MiB per second for whole objects, several at once. */
async function rateOf(count: number, transfer: (key: string) => Promise<unknown>): Promise<number> {
  const ms = await msOf(() => inParallel(PARALLEL, count, (number) => transfer(String(number))));
  return (count * OBJECT_BYTES) / MIB / (ms / 1000);
}

/** Calls `work` with the numbers from 1 to `count`, `many` at a time. */
async function inParallel(
  many: number,
  count: number,
  work: (number: number) => Promise<unknown>,
): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) await work((next += 1));
  };
  await Promise.all(Array.from({ length: many }, worker));
}

function log(line: string): void {
  console.error(line);
}

function table(figures: Figures): string {
  const row = (what: string, ours: string, beside: string, other: string): string[] => {
    const digits = ours.endsWith("ms") ? 1 : 0;
    const [own, others] = [figures.median(ours, digits), figures.median(other, digits)];
    return [what, own, beside, others, figures.ratio(ours, other)];
  };
  return formatTable([
    ["", "tsbuse", "beside", "", "ratio  min..max"],
    row("write and flush of 4k, ms, device alone", "device sync ms", "one PUT of 4k", "put ms"),
    row("  on a socket", "sync ms", "", "put ms"),
    row("", "sync ms", "s3backer, synchronous", "peer sync ms"),
    row("  with a journal, device alone", "journal sync ms", "fdatasync of 4k", "file sync ms"),
    row("sequential write, MiB/s, device alone", "device write MiB/s", "parallel PUTs", "put MiB/s"),
    row("  on a socket", "write MiB/s", "", "put MiB/s"),
    row("", "write MiB/s", "s3backer, 1M blocks", "peer write MiB/s"),
    row("sequential read, MiB/s, device alone", "device read MiB/s", "parallel GETs", "get MiB/s"),
    row("  on a socket", "read MiB/s", "", "get MiB/s"),
    row("", "read MiB/s", "s3backer, 1M blocks", "peer read MiB/s"),
    row("4k random writes per second", "random writes/s", "s3backer, 4k blocks", "peer random writes/s"),
    row("4k random reads per second", "random reads/s", "", "peer random reads/s"),
  ]);
}

async function main(words: readonly string[]): Promise<void> {
  const rounds = Number(words.find((word) => !word.startsWith("--")) ?? 3);
  const directory = mkdtempSync(join(tmpdir(), "tsbuse-bucket-bench-"));
  try {
    await using server = await ObjectStoreServer.start();
    await server.makeBucket(BUCKET);
    const { endpoint, environment } = server;
    const bench = new Bench({ endpoint, environment, bucket: BUCKET }, directory);
    for (let round = 1; round <= rounds; round += 1) {
      await bench.round();
      console.error(`round ${round} of ${rounds}`);
    }
    const text = `${table(bench.figures)}\n\n${await facts(bench.figures, rounds)}`;
    console.log(text);
    if (words.includes("--keep")) keep(text);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function facts(figures: Figures, rounds: number): Promise<string> {
  const cost = await overwrite({
    bytes: 716 * MIB,
    times: 4,
    speed: { answerMs: 5, mibMs: 10 },
    seed: 1,
    options: { create: 1024 * MIB, writer: { compress: false } },
  });
  return formatTable([
    ["objects made for each GiB written in order", figures.median("puts per GiB")],
    ["objects made for each GiB written at random, 4k", figures.median("random puts per GiB")],
    ["bytes sent for each byte overwritten, 70 % full", cost.amplification.toFixed(2)],
    ["bytes stored for each live byte then", cost.stored.toFixed(2)],
    ["mkfs.ext4 with discard of 50 GiB, seconds", figures.median("mkfs s", 2)],
    ["attaching on another machine, ms", figures.median("attach ms")],
    [
      "memory at most, writing and reading in order, MiB",
      `${figures.median("write memory")}, ${figures.median("read memory")}`,
    ],
    ["rounds", String(rounds)],
    ["date; processors", `${new Date().toISOString().slice(0, 10)}; ${cpus().length}`],
  ]);
}

function keep(text: string): void {
  const path = join(ROOT, "bench/README.md");
  const indented = text.replaceAll(/^(?=.)/gm, "    ");
  writeFileSync(path, replaceBetween(readFileSync(path, "utf8"), BEGIN, indented, "bench/README.md"));
}

await main(Bun.argv.slice(2));
