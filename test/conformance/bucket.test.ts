/** Goal: a disk in a real object store is intact and belongs to its last owner alone, however its server ends. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { S3Store } from "../../devices/bucket/s3.ts";
import { type BlockDevice, connectNbd } from "../../src/index.ts";
import { ObjectStoreServer } from "../support/object-store.ts";
import { longPattern } from "../support/random.ts";
import { TemporaryDirectory } from "../support/temporary.ts";
import { commandOf } from "../unit/cli/tsbuse.ts";

const MIB = 2 ** 20;
const START_MS = 120_000;

let store: ObjectStoreServer;

beforeAll(async () => {
  store = await ObjectStoreServer.start();
  await store.makeBucket("disks");
}, START_MS);

afterAll(() => store[Symbol.asyncDispose]());

/** A serving process and a client of it. */
class Served implements AsyncDisposable {
  private constructor(
    readonly process: Bun.Subprocess<"ignore", "pipe", "pipe">,
    readonly device: BlockDevice,
    readonly complaints: Promise<string>,
  ) {}

  static async start(directory: TemporaryDirectory, name: string, ...words: string[]): Promise<Served> {
    const socket = directory.join(`${name}.sock`);
    const [uri, options] = words[0]?.startsWith("s3:") ? [words[0], words.slice(1)] : ["s3://disks/a", words];
    const process = spawn("bucket", uri, `unix:${socket}`, ...options);
    const complaints = process.stderr.text();
    const line = await process.stdout.getReader().read();
    if (line.done) throw new Error(await complaints);
    return new Served(process, await connectNbd(`nbd+unix:///?socket=${socket}`), complaints);
  }

  async read(length: number, offset: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    await this.device.read(bytes, offset);
    return bytes;
  }

  async write(bytes: Uint8Array, offset: number): Promise<void> {
    await this.device.write?.(bytes, offset, { fua: false });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.device.close?.();
    this.process.kill("SIGTERM");
    await this.process.exited;
  }

  async die(): Promise<void> {
    this.process.kill("SIGKILL");
    await this.process.exited;
    // Its client would wait for another server.
    await Promise.resolve(this.device.close?.()).catch(() => undefined);
  }
}

function spawn(...words: string[]): Bun.Subprocess<"ignore", "pipe", "pipe"> {
  return Bun.spawn(commandOf(...words), {
    env: { ...process.env, ...store.environment },
    stdio: ["ignore", "pipe", "pipe"],
  });
}

test("of fifty that make an object at once one does", async () => {
  const { AWS_ACCESS_KEY_ID = "", AWS_SECRET_ACCESS_KEY = "", AWS_REGION } = store.environment;
  const credentials = { accessKeyId: AWS_ACCESS_KEY_ID, secretAccessKey: AWS_SECRET_ACCESS_KEY };
  const client = new S3Store({
    bucket: "disks",
    prefix: "race/",
    endpoint: store.endpoint,
    region: AWS_REGION,
    credentials,
    log: () => undefined,
  });
  const results = await Promise.all(
    Array.from({ length: 50 }, (_, index) => client.create("key", new Uint8Array([index]))),
  );
  expect(results.filter((result) => result === "created")).toEqual(["created"]);
  const [byte] = (await client.get("key", 0, 1)) ?? [];
  expect(byte).toBe(results.indexOf("created"));
  expect(await client.get("none", 0, 1)).toBeUndefined();
  const keys: string[] = [];
  for await (const { key, size } of client.list("")) keys.push(`${key} ${size}`);
  expect(keys).toEqual(["key 1"]);
});

test("what was flushed outlives a kill, a store that stops for a while, and a takeover", async () => {
  using directory = new TemporaryDirectory();
  const data = longPattern(20 * MIB);
  const first = await Served.start(directory, "first", "--create", "1T");
  await first.write(data, 0);
  await first.device.flush?.();
  await first.device.trim?.(2 * MIB, MIB, { fua: false });
  await first.device.flush?.();
  await first.die();
  data.fill(0, 2 * MIB, 3 * MIB);

  const cache = ["--cache", directory.join("cache"), "--cache-size", "8M"];
  const second = await Served.start(directory, "second", ...cache);
  expect(Buffer.compare(await second.read(data.length, 0), data)).toBe(0);
  // The gateway stops in the middle of it: requests wait, and go on.
  await second.write(data.subarray(0, MIB), 512 * MIB);
  store.pause();
  const flush = Promise.resolve(second.device.flush?.());
  const writes = second.write(data, 600 * MIB);
  await writes;
  expect(await Promise.race([flush.then(() => "done"), Bun.sleep(50).then(() => "waits")])).toBe("waits");
  store.resume();
  await flush;
  await second.device.flush?.();

  await using third = await Served.start(directory, "third");
  await second.write(data.subarray(0, MIB), 0);
  const failure = Promise.resolve(second.device.flush?.());
  await expect(failure).rejects.toThrow();
  second.process.kill("SIGTERM");
  expect(await second.process.exited).toBe(1);
  expect(await second.complaints).toContain("s3://disks/a was taken over by process ");
  await Promise.resolve(second.device.close?.()).catch(() => undefined);
  expect(Buffer.compare(await third.read(MIB, 0), data.subarray(0, MIB))).toBe(0);
  expect(Buffer.compare(await third.read(data.length, 600 * MIB), data)).toBe(0);
}, 60_000);

async function run(...words: string[]): Promise<{ status: number; stdout: string; stderr: string }> {
  const child = spawn(...words);
  const [stdout, stderr, status] = await Promise.all([
    child.stdout.text(),
    child.stderr.text(),
    child.exited,
  ]);
  return { status, stdout, stderr };
}

test("a snapshot of a disk in use stays, is shown and cloned, and goes", async () => {
  using directory = new TemporaryDirectory();
  const data = longPattern(4 * MIB);
  const owner = await Served.start(directory, "owner");
  await owner.write(data, 0);
  await owner.device.flush?.();
  const made = await run("bucket-snapshot", "s3://disks/a", "before");
  expect(made).toEqual({ status: 0, stdout: "", stderr: expect.stringContaining("snapshot before of") });
  await owner.write(data.subarray(MIB), 0);
  await owner.device.flush?.();
  await using shown = await Served.start(directory, "shown", "--at", "before");
  expect(Buffer.compare(await shown.read(data.length, 0), data)).toBe(0);
  expect(Buffer.compare(await owner.read(MIB, 0), data.subarray(MIB, 2 * MIB))).toBe(0);
  const cloned = await run("bucket-clone", "s3://disks/a", "s3://disks/b", "--at", "before");
  expect(cloned).toMatchObject({ status: 0, stderr: expect.stringContaining("snapshot clone-b-") });
  const clone = await Served.start(directory, "clone", "s3://disks/b");
  expect(Buffer.compare(await clone.read(data.length, 0), data)).toBe(0);
  await clone.write(data.subarray(2 * MIB), 0);
  await clone.device.flush?.();
  expect(Buffer.compare(await owner.read(MIB, 0), data.subarray(MIB, 2 * MIB))).toBe(0);
  await clone[Symbol.asyncDispose]();
  const again = await run("bucket-snapshot", "s3://disks/a", "before");
  expect(again.stderr).toContain('has a snapshot "before" already: give another name');
  expect((await run("bucket-snapshot", "s3://disks/a", "before", "--remove")).status).toBe(0);
  const inUse = await run("bucket-clean", "s3://disks/a");
  expect(inUse.stderr).toContain("s3://disks/a is in use by process ");
  await owner[Symbol.asyncDispose]();
  const cleaned = await run("bucket-clean", "s3://disks/a", "--bandwidth", "100M");
  expect(cleaned).toMatchObject({
    status: 0,
    stderr: expect.stringMatching(/^tsbuse: .*: from .* objects\n$/),
  });
  const list = await run("bucket-list", "s3://disks/a", "--json");
  expect(JSON.parse(list.stdout)).toMatchObject({
    size: 2 ** 40,
    owner: { detached: true },
    garbage: { objects: 0 },
    snapshots: [{ name: expect.stringMatching(/^clone-b-/), clone: "b/" }],
  });
  expect(await shown.read(MIB, 0)).toEqual(data.subarray(0, MIB));
  const gone = await run("bucket-snapshot", "s3://disks/a", "before", "--remove");
  expect(gone.stderr).toContain('has no snapshot "before"');
}, 60_000);

test("with a journal a flush outlives a kill while the store is away, and the bucket has it after the start", async () => {
  using directory = new TemporaryDirectory();
  const words = ["--flush", "disk", "--journal", directory.join("journal")];
  const data = longPattern(20 * MIB);
  const first = await Served.start(directory, "first", ...words);
  store.pause();
  await first.write(data, 0);
  await first.device.flush?.();
  await first.die();
  store.resume();
  await using second = await Served.start(directory, "second", ...words);
  expect(Buffer.compare(await second.read(data.length, 0), data)).toBe(0);
  // It is in the bucket before anybody is served.
  await using reader = await Served.start(directory, "reader", "--read-only");
  expect(Buffer.compare(await reader.read(data.length, 0), data)).toBe(0);
  const late = spawn("bucket", "s3://disks/a", `unix:${directory.join("late.sock")}`, ...words);
  expect(await late.stderr.text()).toMatch(/^tsbuse: \S+ is in use by another process: [^\n]+\n$/);
  expect(await late.exited).toBe(1);
}, 60_000);

test.each([
  ["no bucket", "s3://none/a", {}, "there is no such bucket: create it"],
  ["no disk", "s3://disks/none", {}, "has no disk: --create SIZE makes one"],
  ["a wrong key", "s3://disks/a", { AWS_SECRET_ACCESS_KEY: "wrong" }, "wrong secret key: check"],
  ["a prefix in use", "s3://disks/race", {}, "is in the way: give another prefix"],
])("%s is one line", async (_, address, environment, line) => {
  const words = address.endsWith("race") ? ["--create", "1G"] : [];
  const child = Bun.spawn(commandOf("bucket", address, "unix:/nonexistent/x.sock", ...words), {
    env: { ...process.env, ...store.environment, ...environment },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [text, status] = await Promise.all([child.stderr.text(), child.exited]);
  expect({ text, status }).toEqual({ text: expect.stringMatching(/^tsbuse: [^\n]+\n$/), status: 1 });
  expect(text).toContain(line);
});
