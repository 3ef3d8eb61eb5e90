/**
 * Goal: a cache answers with a chunk's own bytes or asks the bucket, whatever happens to its directory, and never uses
 * more space than it is allowed.
 */
import { describe, expect, spyOn, test } from "bun:test";
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { ChunkCache } from "../../../devices/bucket/cache.ts";
import { ErrnoError, libc, UserError } from "../../../src/index.ts";
import { chooseSeed, pattern, Random } from "../../support/random.ts";
import { TemporaryDirectory } from "../../support/temporary.ts";

const BLOCK = 4096;
const CHUNK = 16 * BLOCK;
const ENTRY = 80;
const DATA = "tsbuse-cache.chunks";
const INDEX = "tsbuse-cache.index";

const NOISE = pattern(CHUNK);

/** A bucket with a cache in front of it. */
class Bucket {
  /** Keys in the order in which they were fetched. */
  readonly fetched: string[] = [];
  /** The reported lines. */
  readonly lines: string[] = [];
  now = 0;

  bytesOf(key: string): Uint8Array<ArrayBuffer> {
    const bytes = NOISE.slice(0, key.endsWith("short") ? 3 * BLOCK : CHUNK);
    for (let at = 0; at < bytes.length; at += BLOCK) bytes.set(Buffer.from(`${key} `), at);
    return bytes;
  }

  load(key: string): () => Promise<Uint8Array> {
    return async () => {
      this.fetched.push(key);
      return this.bytesOf(key);
    };
  }

  /** A cache for `chunks` chunks. */
  open(directory: TemporaryDirectory, chunks: number, disk = "disk"): ChunkCache {
    const bytes = chunks * (CHUNK + ENTRY);
    const [report, now] = [(line: string) => this.lines.push(line), () => this.now];
    return ChunkCache.inDirectory({ directory: directory.path, bytes, disk, report, now });
  }

  /** Reads, and compares. Returns whether the cache had it. */
  async read(cache: ChunkCache, key: string, at = 0, length = BLOCK): Promise<boolean> {
    const before = this.fetched.length;
    const target = new Uint8Array(length);
    await cache.read(key, at, target, this.load(key));
    expect(Buffer.compare(target, this.bytesOf(key).subarray(at, at + length))).toBe(0);
    await settled(cache);
    return this.fetched.length === before;
  }
}

/** Waits until the cache has stored or dropped everything that arrived. */
async function settled(cache: ChunkCache): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (cache.coming > 0) {
    if (performance.now() > deadline) throw new Error(`${cache.coming} chunks are still on their way`);
    await Bun.sleep(0);
  }
}

const keys = (count: number): string[] => Array.from({ length: count }, (_, index) => `chunk ${index}`);

const KINDS: readonly [string, (bucket: Bucket, directory: TemporaryDirectory) => ChunkCache][] = [
  ["a directory", (bucket, directory) => bucket.open(directory, 8)],
  ["memory", () => ChunkCache.inMemory(8 * CHUNK)],
];

describe.each(KINDS)("a cache in %s", (_, open) => {
  test("has what was read last, in parts and as a whole, within its bounds", async () => {
    using directory = new TemporaryDirectory();
    const bucket = new Bucket();
    const cache = open(bucket, directory);
    const random = new Random(chooseSeed("chunks of a cache"));
    for (const key of keys(40)) {
      expect(await bucket.read(cache, key, random.below(15) * BLOCK, BLOCK)).toBe(false);
      // Chunks that are read repeatedly stay.
      expect(await bucket.read(cache, "chunk 0")).toBe(true);
    }
    const kept = keys(40).filter((key) => cache.has(key));
    expect(kept).toHaveLength(8);
    for (const key of kept) {
      const at = random.below(16);
      expect(await bucket.read(cache, key, at * BLOCK, (1 + random.below(16 - at)) * BLOCK)).toBe(true);
    }
    expect(await bucket.read(cache, "a short", 2 * BLOCK)).toBe(false);
    expect(await bucket.read(cache, "a short", 2 * BLOCK)).toBe(true);
    for (const name of readdirSync(directory.path))
      expect(statSync(directory.join(name)).size).toBeLessThanOrEqual(8 * CHUNK);
    await cache.close();
  });

  test("fetches once for all who want a chunk at one time, and tells all of a failure", async () => {
    using directory = new TemporaryDirectory();
    const bucket = new Bucket();
    const cache = open(bucket, directory);
    await Promise.all([...keys(5), ...keys(5), ...keys(5)].map((key) => bucket.read(cache, key)));
    expect(bucket.fetched).toEqual(keys(5));
    const failure = async (): Promise<Uint8Array> => {
      bucket.fetched.push("failure");
      throw new Error("the bucket is away");
    };
    const reads = keys(3).map(() => cache.read("other", 0, new Uint8Array(BLOCK), failure));
    const results = await Promise.allSettled(reads);
    expect(results.map(({ status }) => status)).toEqual(["rejected", "rejected", "rejected"]);
    expect(bucket.fetched.slice(5)).toEqual(["failure"]);
    expect(await bucket.read(cache, "other")).toBe(false);
    await cache.close();
  });

  test("has what was fetched ahead, though nobody has read it", async () => {
    using directory = new TemporaryDirectory();
    const bucket = new Bucket();
    const cache = open(bucket, directory);
    cache.fetchAhead("ahead", bucket.load("ahead"));
    cache.fetchAhead("ahead", bucket.load("ahead"));
    cache.fetchAhead("nowhere", async () => Promise.reject(new Error("the bucket is away")));
    await bucket.read(cache, "ahead");
    await settled(cache);
    expect(bucket.fetched).toEqual(["ahead"]);
    expect(cache.has("nowhere")).toBe(false);
    await cache.close();
  });
});

describe("a directory", () => {
  test("that is in use is waited for, and not for ever", async () => {
    using directory = new TemporaryDirectory();
    const bucket = new Bucket();
    const first = bucket.open(directory, 1);
    const options = { directory: directory.path, bytes: CHUNK + ENTRY, disk: "disk", report: () => {} };
    await expect(ChunkCache.whenFree(options, 60)).rejects.toThrow("is in use by another process");
    const second = ChunkCache.whenFree(options, 60_000);
    await bucket.read(first, "chunk");
    await first.close();
    expect(await bucket.read(await second, "chunk")).toBe(true);
    await (await second).close();
  });

  test("is warm after a restart, for the same disk alone", async () => {
    using directory = new TemporaryDirectory();
    const bucket = new Bucket();
    for (const [disk, chunks, warm] of [
      ["one", 100, 0],
      ["one", 100, 30],
      ["one", 20, 20],
      ["two", 20, 0],
    ] as const) {
      const cache = bucket.open(directory, chunks, disk);
      expect(
        keys(30).filter((key) => cache.has(key)),
        `${disk} ${chunks}`,
      ).toHaveLength(warm);
      for (const key of keys(chunks < 30 ? 0 : 30)) await bucket.read(cache, key, 5 * BLOCK, 3 * BLOCK);
      await cache.close();
      expect(statSync(directory.join(DATA)).size).toBeLessThanOrEqual(chunks * CHUNK);
    }
    expect(bucket.fetched).toHaveLength(30);
  });

  test("is refused while another has it, or where there can be none, and nothing of others is touched", () => {
    using directory = new TemporaryDirectory();
    const bucket = new Bucket();
    const cache = bucket.open(directory, 1);
    expect(() => bucket.open(directory, 1)).toThrow(UserError);
    expect(() => bucket.open(directory, 1)).toThrow("is in use by another process: give each disk");
    void cache.close();
    using other = new TemporaryDirectory();
    writeFileSync(other.join("precious"), "precious");
    symlinkSync(other.join("precious"), other.join(DATA));
    expect(() => bucket.open(other, 1)).toThrow("cannot hold the cache");
    expect(readFileSync(other.join("precious"), "utf8")).toBe("precious");
  });

  test("does not give a slot that is being read to another chunk", async () => {
    using directory = new TemporaryDirectory();
    const bucket = new Bucket();
    const cache = bucket.open(directory, 1);
    await bucket.read(cache, "a");
    const gate = Promise.withResolvers<void>();
    const read = libc.AsyncFile.prototype.read;
    using spy = spyOn(libc.AsyncFile.prototype, "read").mockImplementationOnce(async function late(
      this: libc.AsyncFile,
      target: Uint8Array,
      offset: number,
    ) {
      await gate.promise;
      await read.call(this, target, offset);
    });
    const reads = bucket.read(cache, "a", BLOCK);
    await bucket.read(cache, "b", BLOCK);
    gate.resolve();
    await reads;
    expect(bucket.fetched).toEqual(["a", "b"]);
    expect(spy).toHaveBeenCalledTimes(1);
    expect(["a", "b"].map((key) => cache.has(key))).toEqual([true, false]);
    await cache.close();
  });

  test("may be damaged in any way at any time", async () => {
    using directory = new TemporaryDirectory();
    const bucket = new Bucket();
    const random = new Random(chooseSeed("damage to a cache"));
    let cache = bucket.open(directory, 20);
    let hits = 0;
    for (let step = 0; step < 150; step += 1) {
      const reads = keys(3).map(() => `chunk ${random.below(30)}`);
      for (const hit of await Promise.all(
        reads.map((key) => bucket.read(cache, key, random.below(16) * BLOCK)),
      ))
        if (hit) hits += 1;
      if (random.oneIn(4)) damage(directory.join(random.pick([DATA, DATA, INDEX])), random);
      if (random.oneIn(10)) {
        await cache.close();
        cache = bucket.open(directory, 20);
      }
    }
    expect(hits).toBeGreaterThan(0);
    await cache.close();
  }, 60_000);

  test("that is removed is done without, and gives its space back", async () => {
    using directory = new TemporaryDirectory();
    const bucket = new Bucket();
    const cache = bucket.open(directory, 20);
    for (const key of keys(10)) await bucket.read(cache, key);
    rmSync(directory.path, { recursive: true });
    bucket.now += 60_000;
    for (const key of ["a", "b"]) await bucket.read(cache, key);
    expect(openFilesBelow(directory.path)).toEqual([]);
    expect(bucket.lines).toEqual([expect.stringContaining("takes no more, reads go to the bucket: open")]);
    expect(await bucket.read(cache, "a")).toBe(false);
    expect(existsSync(directory.path)).toBe(false);
    await cache.close();
  });

  test("on a full disk is left alone for a while, and reads go on", async () => {
    using directory = new TemporaryDirectory();
    const bucket = new Bucket();
    const cache = bucket.open(directory, 20);
    await bucket.read(cache, "kept");
    {
      using write = spyOn(libc.AsyncFile.prototype, "write").mockImplementation(() => {
        throw new ErrnoError("ENOSPC", "write: No space left on device");
      });
      for (const key of keys(5)) expect(await bucket.read(cache, key)).toBe(false);
      expect(write).toHaveBeenCalledTimes(1);
      bucket.now += 60_000;
      for (const key of keys(5)) expect(await bucket.read(cache, key)).toBe(false);
      expect(write).toHaveBeenCalledTimes(2);
    }
    expect(bucket.lines).toEqual([expect.stringContaining("No space left on device")]);
    expect(await bucket.read(cache, "kept")).toBe(true);
    bucket.now += 60_000;
    await bucket.read(cache, "chunk 0");
    expect(await bucket.read(cache, "chunk 0")).toBe(true);
    await cache.close();
  });

  test("whose files are removed gets new ones", async () => {
    using directory = new TemporaryDirectory();
    const bucket = new Bucket();
    const cache = bucket.open(directory, 20);
    await bucket.read(cache, "a");
    for (const name of readdirSync(directory.path)) rmSync(directory.join(name));
    bucket.now += 60_000;
    await bucket.read(cache, "b");
    expect(await bucket.read(cache, "b")).toBe(true);
    expect(statSync(directory.join(DATA)).size).toBe(CHUNK);
    await cache.close();
  });
});

function damage(path: string, random: Random): void {
  const { size } = statSync(path);
  if (random.oneIn(4)) return truncateSync(path, random.below(size + 1));
  const fd = openSync(path, "r+");
  for (let count = random.pick([1, 20]); count > 0; count -= 1) {
    const bytes = random.oneIn(2) ? new Uint8Array(random.below(CHUNK)) : random.bytes(1 + random.below(9));
    writeSync(fd, bytes, 0, bytes.length, random.below(size + 1));
  }
  closeSync(fd);
}

/** This process's open files, including removed ones. */
function openFilesBelow(path: string): string[] {
  const links = readdirSync("/proc/self/fd").map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      // The descriptor of the listing itself.
      return "";
    }
  });
  return links.filter((link) => link.startsWith(path));
}
