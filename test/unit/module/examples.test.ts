/** Goal: the examples work as modules as they say: bytes are returned, and failures are reported. */
import { afterEach, expect, spyOn, test } from "bun:test";
import { join } from "node:path";
import { mkdirSync, renameSync, truncateSync, writeFileSync } from "node:fs";
import { type BlockDevice, checkDevice } from "tsbuse";
import { Mirror } from "../../../devices/mirror.ts";
import { ErrnoError, messageOf, UserError } from "../../../src/errors.ts";
import { loadDevice } from "../../../src/module/load.ts";
import { Random } from "../../../src/values/random.ts";
import { Shadow } from "../../support/shadow.ts";
import { TemporaryDirectory } from "../../support/temporary.ts";

const PLAIN = { fua: false };
const directory = (): string => join(import.meta.dir, "../../../devices");
const load = (name: string, options: Record<string, string>): Promise<BlockDevice> =>
  loadDevice(join(directory(), name), options);

/** The adversary finds nothing. */
async function expectNoFault(name: string, options: Record<string, string>): Promise<void> {
  const how = { seed: 1, ops: 400, persistent: true };
  expect((await checkDevice(() => load(name, options), how)).failure).toBeUndefined();
}

let server: Bun.Server<undefined> | undefined;

afterEach(async () => {
  await server?.stop(true);
  server = undefined;
});

test("sqlite: holds what is written to it, and still does when it is opened again", async () => {
  using temporary = new TemporaryDirectory();
  const options = { file: temporary.join("disk.db"), size: "1M" };
  await expectNoFault("sqlite.ts", options);
  const device = await load("sqlite.ts", options);
  const bytes = new Uint8Array(8192).fill(9);
  await device.write?.(bytes, 4096, PLAIN);
  await device.close?.();
  const again = await load("sqlite.ts", options);
  const target = new Uint8Array(8192);
  await again.read(target, 4096);
  await again.close?.();
  expect(target).toEqual(bytes);
  expect(again.identity).toBe(device.identity);
  await Bun.write(`${options.file}.copy`, Bun.file(options.file));
  renameSync(`${options.file}.copy`, options.file);
  const other = await load("sqlite.ts", options);
  await other.close?.();
  expect(other.identity).not.toBe(device.identity);
});

test("sqlite: writes of one turn are one transaction, and all fail when it does", async () => {
  using temporary = new TemporaryDirectory();
  const device = await load("sqlite.ts", { file: temporary.join("disk.db"), size: "1M" });
  const bytes = new Uint8Array(4096);
  const together = [device.write?.(bytes, 0, PLAIN), device.write?.(bytes, 4096, PLAIN)];
  expect(together[0]).toBe(together[1]);
  await Promise.all(together);
  const late = device.write?.(bytes, 0, PLAIN);
  await device.close?.();
  expect(await Promise.resolve(late).catch(messageOf)).toContain("closed database");
});

test("sqlite: a file that cannot be opened is said", async () => {
  const failed: unknown = await load("sqlite.ts", { file: "/nowhere/disk.db", size: "1M" }).catch(
    (error: unknown) => error,
  );
  expect(failed).toBeInstanceOf(UserError);
  expect(messageOf(failed)).toMatch(
    /sqlite\.ts:\d+:\d+: the function that makes the device threw SQLiteError: unable to open/,
  );
});

/** A web server with a file of these bytes; `state` changes its answers. */
function serveFile(bytes: Uint8Array, state: { etag: string; status?: number }): string {
  server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch(request) {
      const headers = { "accept-ranges": "bytes", etag: state.etag };
      if (state.status !== undefined) return new Response("", { status: state.status });
      if (request.method === "HEAD") {
        return new Response(null, { headers: { ...headers, "content-length": String(bytes.length) } });
      }
      const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.get("range") ?? "") ?? [];
      if (from === undefined) return new Response(bytes, { headers });
      return new Response(bytes.slice(Number(from), Number(to) + 1), { status: 206, headers });
    },
  });
  return server.url.href;
}

test("http: reads by ranges, many at once, in whole blocks", async () => {
  const bytes = new Random(2).bytes(100 * 512 + 17);
  const device = await load("http.ts", { url: serveFile(bytes, { etag: '"1"' }) });
  expect(device.size).toBe(100 * 512);
  expect(device.write).toBeUndefined();
  const targets = Array.from({ length: 50 }, () => new Uint8Array(1024));
  await Promise.all(targets.map((target, index) => device.read(target, index * 1024)));
  expect(Buffer.concat(targets)).toEqual(Buffer.from(bytes.subarray(0, 100 * 512)));
});

test("http: is the same where address, query and version are, whatever their length", async () => {
  const state = { etag: '"1"' };
  const url = serveFile(new Uint8Array(4096), state);
  const identityOf = async (rest: string): Promise<string | undefined> =>
    (await load("http.ts", { url: `${url}${rest}` })).identity;
  const long = `${"é".repeat(500)}?${"x".repeat(2000)}`;
  const found = [await identityOf("disk?v=1"), await identityOf("disk?v=2"), await identityOf(long)];
  expect(await identityOf("disk?v=1")).toBe(found[0]);
  state.etag = '"2"';
  found.push(await identityOf("disk?v=1"));
  expect(new Set(found).size).toBe(4);
});

test("http: a file that changes, and a server that fails, are errors; the device goes on", async () => {
  const state: { etag: string; status?: number } = { etag: '"1"' };
  const url = serveFile(new Uint8Array(4096), state);
  const device = await load("http.ts", { url });
  const target = new Uint8Array(512);
  state.status = 503;
  expect(await Promise.resolve(device.read(target, 0)).catch(messageOf)).toBe(
    `${url}: status 503 with 0 bytes`,
  );
  delete state.status;
  expect(await device.read(target, 0)).toBeUndefined();
  state.etag = '"2"';
  const changed: unknown = await Promise.resolve(device.read(target, 0)).catch((error: unknown) => error);
  expect(changed).toBeInstanceOf(ErrnoError);
  expect(messageOf(changed)).toBe(`${url} has changed`);
});

test.each([
  [404, "status 404: check the address"],
  [204, "cannot be read by ranges"],
])("http: a server that answers %d is refused", async (status, message) => {
  const url = serveFile(new Uint8Array(4096), { etag: "", status });
  expect(await load("http.ts", { url }).catch(messageOf)).toContain(
    `${url}${status === 404 ? ": " : " "}${message}`,
  );
});

test("mirror: over two files, both of which hold the same", async () => {
  using temporary = new TemporaryDirectory();
  const files = [temporary.join("a.img"), temporary.join("b.img")];
  for (const file of files) {
    writeFileSync(file, "");
    truncateSync(file, 2 ** 20);
  }
  await expectNoFault("mirror.ts", { files: files.join(",") });
  const device = await load("mirror.ts", { files: files.join(",") });
  await device.write?.(new Random(3).bytes(4096), 8192, PLAIN);
  await device.flush?.();
  await device.close?.();
  const [one, two] = await Promise.all(files.map((file) => Bun.file(file).bytes()));
  expect(one).toEqual(two);
  expect(one?.some((byte) => byte !== 0)).toBe(true);
});

const gone = (): never => {
  throw new ErrnoError("ENODEV", "gone");
};

test("mirror: a member that fails a write is not read any more, even when it has come back", async () => {
  using said = spyOn(console, "error").mockImplementation(() => undefined);
  using temporary = new TemporaryDirectory();
  const [one, two] = [new Shadow(4096), new Shadow(4096)];
  const mirror = new Mirror([one, two], [temporary.join("one"), temporary.join("two")]);
  const bytes = new Uint8Array(512).fill(5);
  two.hold = gone;
  const target = new Uint8Array(512);
  for (let i = 0; i < 4; i += 1) await mirror.read(target, 0);
  await mirror.write(bytes, 0);
  expect(said.mock.calls).toEqual([[`mirror: ${temporary.join("two")} is left out: ErrnoError: gone`]]);
  two.hold = () => undefined;
  for (let i = 0; i < 4; i += 1) {
    await mirror.read(target, 0);
    expect(target).toEqual(bytes);
  }
  one.hold = gone;
  expect(await mirror.read(target, 0).catch(messageOf)).toBe("gone");
  expect(await mirror.write(bytes, 0).catch(messageOf)).toBe("no member is left");
  expect(await mirror.read(target, 0).catch(messageOf)).toBe("no member is left");
});

test("mirror: a member that has missed a write is not read by a later run either, in whatever order", async () => {
  using said = spyOn(console, "error").mockImplementation(() => undefined);
  using temporary = new TemporaryDirectory();
  const [a, b] = [temporary.join("a.img"), temporary.join("b.img")];
  const [one, two] = [new Shadow(4096), new Shadow(4096)];
  const bytes = new Uint8Array(512).fill(5);
  two.hold = gone;
  await new Mirror([one, two], [a, b]).write(bytes, 0);
  two.hold = () => undefined;
  const later = new Mirror([two, one], [b, a]);
  for (let i = 0; i < 4; i += 1) {
    const target = new Uint8Array(512);
    await later.read(target, 0);
    expect(target).toEqual(bytes);
  }
  expect(said.mock.calls.at(-1)).toEqual([`mirror: ${b} has missed writes: left out`]);
  // Each has been served without the other.
  writeFileSync(`${b}.left-out`, `${a}\n`);
  expect(() => new Mirror([one, two], [a, b])).toThrow("all members miss writes: empty one's .left-out");
  mkdirSync(temporary.join("moved"));
  const moved = [temporary.join("moved/a.img"), temporary.join("moved/b.img")];
  for (const [index, file] of [a, b].entries()) renameSync(`${file}.left-out`, `${moved[index]}.left-out`);
  expect(() => new Mirror([one, two], moved)).toThrow(
    `a .left-out names ${b}, no member: put its new name there`,
  );
});
