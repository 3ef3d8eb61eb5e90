/** Goal: many concurrent reads and writes of a file have the same result as each alone, and none is lost. */
import { describe, expect, spyOn, test } from "bun:test";
import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { AsyncFile } from "../../src/libc/async-file.ts";
import { errnoOf } from "../../src/errors.ts";
import { unwrap } from "../../src/libc/errno.ts";
import { close, open } from "../../src/libc/file.ts";
import { Memory } from "../../src/libc/memory.ts";
import { Ring } from "../../src/libc/uring.ts";
import { errno } from "../../src/uapi/errno.ts";
import { O_DIRECT, O_RDONLY, O_RDWR } from "../../src/uapi/fcntl.ts";
import { errnoFailure } from "../support/failure.ts";
import { openFiles } from "../support/own-use.ts";
import { chooseSeed, pattern, Random } from "../support/random.ts";
import { hasDirectIo, TemporaryDirectory } from "../support/temporary.ts";

const BLOCK = 4096;
const BLOCKS = 1024;
const DATA = pattern(BLOCKS * BLOCK);
const HAS_DIRECT = hasDirectIo();

interface Options {
  readonly direct?: boolean;
  readonly flags?: number;
  readonly parent?: string;
}

/** A file full of DATA. */
class Scratch implements AsyncDisposable {
  readonly #directory: TemporaryDirectory;
  readonly path: string;
  readonly file: AsyncFile;
  readonly #fd: number;

  constructor({ direct = false, flags = O_RDWR, parent }: Options = {}) {
    this.#directory = new TemporaryDirectory(parent);
    this.path = this.#directory.join("file");
    writeFileSync(this.path, DATA);
    this.#fd = unwrap(open(this.path, flags | (direct ? O_DIRECT : 0)), "open");
    this.file = new AsyncFile(this.#fd, this.path, { direct });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.file.close();
    close(this.#fd);
    this.#directory[Symbol.dispose]();
  }
}

/** Room for `count` aligned blocks. */
function alignedBlocks(count: number): Uint8Array[] {
  const bytes = new Memory(count * BLOCK).bytes();
  return Array.from({ length: count }, (_, index) => bytes.subarray(index * BLOCK, (index + 1) * BLOCK));
}

function testIf(condition: boolean): typeof test {
  return condition ? test : test.skip;
}

const KINDS: readonly (readonly [string, Options])[] = [
  ["with a page cache", {}],
  ["in memory", { parent: "/dev/shm" }],
  ["around the page cache (skipped where the file system cannot)", { direct: true }],
];

describe.each(KINDS)("a file %s", (_, options) => {
  const testKind = testIf(options.direct !== true || HAS_DIRECT);

  testKind("is read and written by more at once than the kernel takes, each in its place", async () => {
    await using scratch = new Scratch(options);
    const { file } = scratch;
    const random = new Random(chooseSeed("async file"));
    const expected = DATA.slice();
    for (let round = 0; round < 5; round += 1) {
      // Every block once, half of them written and the others read.
      const buffers = alignedBlocks(BLOCKS);
      const order = buffers
        .map((_buffer, block) => ({ block, at: random.fraction() }))
        .toSorted((a, b) => a.at - b.at);
      const written = new Set<number>();
      const all = order.map(({ block, at }) => {
        const buffer = buffers[block] ?? new Uint8Array();
        if (at < 0.5) return file.read(buffer, block * BLOCK);
        buffer.fill(Math.floor(at * 256) + round);
        written.add(block);
        return file.write(buffer, block * BLOCK, at > 0.9);
      });
      await Promise.all(all);
      for (const [block, buffer] of buffers.entries()) {
        const place = expected.subarray(block * BLOCK, (block + 1) * BLOCK);
        if (written.has(block)) place.set(buffer);
        else expect(Buffer.compare(buffer, place)).toBe(0);
      }
    }
    await file.datasync();
    expect(Buffer.compare(readFileSync(scratch.path), expected)).toBe(0);
  });

  testKind("that ends too early is EIO", async () => {
    await using scratch = new Scratch(options);
    const [one = DATA, other = DATA] = alignedBlocks(2);
    const beyond = await errnoFailure(() => scratch.file.read(one, DATA.length));
    expect(beyond.code).toBe("EIO");
    expect(beyond.message).toBe(`${scratch.path} is shorter than when it was attached`);
    await scratch.file.read(other, DATA.length - BLOCK);
    expect(Buffer.compare(other, DATA.subarray(-BLOCK))).toBe(0);
  });

  testKind("that is open for reading is not written", async () => {
    await using scratch = new Scratch({ ...options, flags: O_RDONLY });
    const [block = DATA] = alignedBlocks(1);
    for (const dsync of [false, true]) {
      const failure = await errnoFailure(() => scratch.file.write(block, 0, dsync));
      expect(failure.code).toBe("EBADF");
      expect(failure.message).toBe(`write of ${scratch.path}: Bad file descriptor`);
    }
  });
});

test("a file system that is memory is not waited for by promises", async () => {
  await using scratch = new Scratch({ parent: "/dev/shm" });
  const { file } = scratch;
  expect([file.asynchronous, file.ringFailure]).toEqual([false, undefined]);
  const block = new Uint8Array(BLOCK);
  expect([file.read(block, 0), file.write(block, 0, true), file.datasync(), file.close()]).toEqual([
    undefined,
    undefined,
    undefined,
    undefined,
  ]);
});

/** Drops what the page cache holds of the file. */
function dropCache(path: string): void {
  const dd = Bun.spawnSync(["dd", `of=${path}`, "oflag=nocache", "conv=notrunc,fdatasync", "count=0"]);
  expect(dd.exitCode).toBe(0);
}

const KNOWS_CACHE = await knowsCache();

/** Whether the file system of temporary directories can tell what the page cache holds. */
async function knowsCache(): Promise<boolean> {
  await using scratch = new Scratch();
  return scratch.file.asynchronous;
}

const testCache = testIf(KNOWS_CACHE);

testCache("what the page cache has is there at once, all else a promise (skipped on tmpfs)", async () => {
  await using scratch = new Scratch();
  const { file, path } = scratch;
  const block = new Uint8Array(BLOCK);
  expect(file.read(block, 0)).toBeUndefined();
  dropCache(path);
  const promise = file.read(block, 17 * BLOCK);
  expect(promise).toBeInstanceOf(Promise);
  await promise;
  expect(Buffer.compare(block, DATA.subarray(17 * BLOCK, 18 * BLOCK))).toBe(0);
  expect(file.read(block, 17 * BLOCK)).toBeUndefined();
  // The page cache holds a part of it.
  const long = new Uint8Array(DATA.length);
  dropCache(path);
  await file.read(long.subarray(0, BLOCK), 0);
  await file.read(long, 0);
  expect(Buffer.compare(long, DATA)).toBe(0);
});

testCache(
  "a small buffer whose memory the runtime moves is filled all the same (skipped on tmpfs)",
  async () => {
    await using scratch = new Scratch();
    for (let at = 0; at < 64; at += 1) {
      dropCache(scratch.path);
      const target = new Uint8Array(512);
      const promise = scratch.file.read(target, at * 512);
      // Reading the `buffer` of a small array moves its bytes.
      expect(target.buffer.byteLength).toBe(512);
      await promise;
      expect(Buffer.compare(target, DATA.subarray(at * 512, (at + 1) * 512))).toBe(0);
    }
  },
);

/** A FIFO returns what it has, like a disk with short or slow reads. */
class Fifo implements AsyncDisposable {
  readonly #directory = new TemporaryDirectory();
  readonly #fd: number;
  readonly #writer: number;
  readonly file: AsyncFile;
  #closed: Promise<void> | undefined;

  constructor() {
    const path = this.#directory.join("fifo");
    expect(Bun.spawnSync(["mkfifo", path]).exitCode).toBe(0);
    this.#fd = unwrap(open(path, O_RDWR), "open");
    this.#writer = openSync(path, "r+");
    this.file = new AsyncFile(this.#fd, path, { direct: true });
  }

  put(bytes: Uint8Array): void {
    writeSync(this.#writer, bytes);
  }

  close(): Promise<void> {
    this.#closed ??= Promise.resolve(this.file.close());
    return this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
    closeSync(this.#writer);
    close(this.#fd);
    this.#directory[Symbol.dispose]();
  }
}

test("a read that brings less than all is continued, and the event loop is free meanwhile", async () => {
  await using fifo = new Fifo();
  const target = new Uint8Array(3000);
  const promise = fifo.file.read(target, 0);
  let settled = false;
  void Promise.resolve(promise).then(() => (settled = true));
  for (let at = 0; at < 3000; at += 1000) {
    expect(settled).toBe(false);
    await Bun.sleep(1);
    fifo.put(DATA.subarray(at, at + 1000));
  }
  await promise;
  expect(Buffer.compare(target, DATA.subarray(0, 3000))).toBe(0);
});

/** The rings that this process has open. */
function openRings(): number {
  return openFiles().filter((file) => file === "anon_inode:[io_uring]").length;
}

test("close waits for what is in flight, and leaves no ring", async () => {
  const before = openRings();
  {
    await using fifo = new Fifo();
    expect(openRings()).toBe(before + 1);
    const target = new Uint8Array(8);
    let settled = false;
    void Promise.resolve(fifo.file.read(target, 0)).then(() => (settled = true));
    const closed = fifo.close().then(() => settled);
    await Bun.sleep(1);
    fifo.put(DATA.subarray(0, 8));
    expect(await closed).toBe(true);
    expect(target).toEqual(DATA.slice(0, 8));
  }
  expect(openRings()).toBe(before);
});

describe("a ring that does not take what it is given", () => {
  test.each([
    ["after a signal", -errno.EINTR],
    ["while memory is short", -errno.EAGAIN],
    ["while completions are to be taken first", -errno.EBUSY],
  ])("gets it again %s", async (_, result) => {
    await using scratch = new Scratch();
    const entering = spyOn(Ring.prototype, "enter").mockImplementationOnce(() => result);
    try {
      await scratch.file.datasync();
      expect(entering.mock.calls.length).toBeGreaterThan(1);
    } finally {
      entering.mockRestore();
    }
  });

  test("fails what it was given otherwise, nobody else, and goes on", async () => {
    await using scratch = new Scratch();
    const entering = spyOn(Ring.prototype, "enter").mockImplementation(() => -errno.EOPNOTSUPP);
    // More than the ring has entries: those that wait for one fail as well.
    const all = Array.from({ length: 300 }, () => scratch.file.datasync());
    const results = await Promise.allSettled(all);
    entering.mockRestore();
    expect(new Set(results.map(({ status }) => status))).toEqual(new Set(["rejected"]));
    expect(errnoOf(results[0]?.status === "rejected" ? results[0].reason : undefined)).toBe(errno.EOPNOTSUPP);
    await scratch.file.datasync();
  });
});
