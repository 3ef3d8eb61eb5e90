/** Where a server listens: what a target means, and who owns a socket's path. */
import { describe, expect, mock, test } from "bun:test";
import { closeSync, existsSync, openSync, statSync, unlinkSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { isServerTarget, parseServerTarget, targetUri } from "../../../../src/nbd/server/target.ts";
import { Dispatch } from "../../../../src/dispatch.ts";
import { messageOf } from "../../../../src/errors.ts";
import { flock } from "../../../../src/libc/file.ts";
import { listenUnix } from "../../../../src/libc/listen.ts";
import { tryUnix } from "../../../../src/libc/socket.ts";
import { claimSocketPath } from "../../../../src/nbd/server/unix-listener.ts";
import { LOCK_EX } from "../../../../src/uapi/fcntl.ts";
import { Stop } from "../../../../src/serving/stop.ts";
import { NbdServer } from "../../../../src/nbd/server/server.ts";
import { type Attachment, attach, serve } from "../../../../src/index.ts";
import { AsyncStore } from "../../../support/async-devices.ts";
import { userError } from "../../../support/failure.ts";
import { RawClient } from "../../../support/raw-client.ts";
import { until } from "../../../support/shell.ts";
import { Shadow } from "../../../support/shadow.ts";
import { TemporaryDirectory } from "../../../support/temporary.ts";

const tcp = (host: string, port: number, exportName?: string): object => ({
  kind: "tcp",
  host,
  port,
  exportName,
});
const unix = (path: string, exportName?: string): object => ({ kind: "unix", path, exportName });

describe("targets", () => {
  test.each([
    ["unix:/run/a.sock", unix("/run/a.sock")],
    ["unix:a.sock", unix(resolve("a.sock"))],
    ["tcp:127.0.0.1:10809", tcp("127.0.0.1", 10_809)],
    ["tcp:0.0.0.0:1", tcp("0.0.0.0", 1)],
    ["tcp::10809", tcp("127.0.0.1", 10_809)],
    ["tcp:10809", tcp("127.0.0.1", 10_809)],
    ["tcp:[::1]:10809", tcp("::1", 10_809)],
    ["nbd://localhost", tcp("localhost", 10_809)],
    ["nbd://localhost:99/", tcp("localhost", 99)],
    ["nbd:///disk", tcp("127.0.0.1", 10_809, "disk")],
    ["nbd://[::1]:99/a%20b", tcp("::1", 99, "a b")],
    ["nbd+unix:///?socket=/run/a.sock", unix("/run/a.sock")],
    ["nbd+unix:///disk?socket=/run/a%20b.sock", unix("/run/a b.sock", "disk")],
  ])("%s", (target, parsed) => {
    expect(isServerTarget(target)).toBe(true);
    expect(parseServerTarget(target)).toEqual(parsed as ReturnType<typeof parseServerTarget>);
  });

  test.each(["/dev/nbd0", "auto", "unix", "disk.img", "./unix:x"])("%s is none", (target) => {
    expect(isServerTarget(target)).toBe(false);
  });

  test.each([
    ["unix:", "names no socket"],
    [`unix:/${"x".repeat(107)}`, "is too long for a Unix socket"],
    ["tcp:localhost", "is not an address"],
    ["tcp:localhost:65536", "is not an address"],
    ["tcp:localhost:x", "is not an address"],
    ["tcp:::1:99", "is not an address"],
    ["nbds://localhost", "is not an NBD URI that can be served"],
    ["nbd+vsock:///", "is not an NBD URI that can be served"],
    ["nbd+unix:///disk", "names no socket"],
    ["nbd://localhost/%ff", "names an export that cannot be decoded"],
  ])("%s: %s", (target, message) => {
    expect(isServerTarget(target)).toBe(true);
    expect(userError(() => parseServerTarget(target))).toContain(message);
  });

  test.each(["unix:/run/a b?&#%.sock", "tcp:[::1]:99", "nbd://localhost:99/"])(
    "the URI of %s means it",
    (target) => {
      const parsed = parseServerTarget(target);
      const exportName = "a/b ?&#%\u{e9}";
      expect(parseServerTarget(targetUri(parsed, exportName))).toEqual({ ...parsed, exportName });
    },
  );
});

function begin(path: string): Promise<Attachment> {
  return serve(new AsyncStore(4096), `unix:${path}`);
}

/** The error message of starting a server at `path`. */
async function failure(path: string): Promise<string> {
  const device = new AsyncStore(4096);
  const error: unknown = await serve(device, `unix:${path}`).catch((thrown: unknown) => thrown);
  expect(device.closed).toBe(true);
  return error instanceof Error ? error.message : "";
}

describe("a Unix socket", () => {
  test("is the owner's alone, and is gone after the end", async () => {
    using directory = new TemporaryDirectory();
    const path = directory.join("s");
    const umask = process.umask(0);
    const server = await begin(path);
    expect(process.umask(umask)).toBe(0);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    await server.close();
    expect(existsSync(path)).toBe(false);
  });

  test("that a dead server left is replaced", async () => {
    using directory = new TemporaryDirectory();
    const path = directory.join("s");
    const listen = `Bun.listen({ unix: ${JSON.stringify(path)}, socket: { data() {} } }); process.kill(process.pid, 9)`;
    Bun.spawnSync([process.execPath, "-e", listen]);
    expect(statSync(path).isSocket()).toBe(true);
    await using server = await begin(path);
    using client = await RawClient.connect(server.path);
    expect(await client.bytes(18)).toHaveLength(18);
  });

  test("of a live server is not touched", async () => {
    using directory = new TemporaryDirectory();
    const path = directory.join("s");
    await using server = await begin(path);
    expect(await failure(path)).toBe(`${path} is served by another process: end it, or choose another path`);
    using client = await RawClient.transmitting(server.path);
    expect(client.isClosed).toBe(false);
  });

  test("that is of another type is not touched", async () => {
    using directory = new TemporaryDirectory();
    const path = directory.join("s");
    await using receiver = Bun.spawn(["socat", `UNIX-RECV:${path}`, "-"], {
      stdio: ["ignore", "ignore", "ignore"],
    });
    await until("it is there", () => existsSync(path));
    expect(await failure(path)).toBe(`${path} is served by another process: end it, or choose another path`);
    expect([existsSync(path), receiver.exitCode]).toEqual([true, null]);
  });

  test("of a live server that takes no more clients for now is not touched", async () => {
    using directory = new TemporaryDirectory();
    const path = directory.join("s");
    const listener = listenUnix(path);
    const waiting: number[] = [];
    try {
      for (let fd = tryUnix(path); fd >= 0; fd = tryUnix(path)) waiting.push(fd);
      expect(await failure(path)).toBe(
        `${path} is served by another process: end it, or choose another path`,
      );
      expect(existsSync(path)).toBe(true);
    } finally {
      for (const fd of [...waiting, listener]) closeSync(fd);
    }
  });

  test("whose path is another's by now is not removed", async () => {
    using directory = new TemporaryDirectory();
    const path = directory.join("s");
    const first = await begin(path);
    unlinkSync(path);
    await using second = await begin(path);
    await first.close();
    using client = await RawClient.transmitting(second.path);
    expect(client.isClosed).toBe(false);
  });

  test("waits for the lock of another server, and not for ever: anybody can take it", async () => {
    using directory = new TemporaryDirectory();
    const holder = openSync(directory.path, "r");
    flock(holder, LOCK_EX);
    const path = directory.join("s");
    const listen = mock(() => 0);
    expect(await claimSocketPath(path, listen, 50).catch(messageOf)).toBe(
      `another process holds a lock on the directory of ${path}: "lslocks" shows it, end it, or choose another directory`,
    );
    expect(listen).not.toHaveBeenCalled();
    const server = begin(path);
    closeSync(holder);
    await (await server).close();
  });

  test("takes no file's place", async () => {
    using directory = new TemporaryDirectory();
    const path = directory.join("file");
    writeFileSync(path, "mine");
    expect(await failure(path)).toBe(`${path} exists and is not a socket: choose another path`);
    expect(await failure(directory.join("none/s"))).toContain("make its directory first");
  });
});

/** Serves until `use` is done. */
async function withServer(target: string, use: (path: string) => Promise<void>): Promise<void> {
  const server = new NbdServer(parseServerTarget(target), new Dispatch(new Shadow(4096)));
  const ready = Promise.withResolvers<void>();
  const ended = server.serve(ready.resolve, new Stop(target));
  await Promise.race([ready.promise, ended]);
  await use(server.path);
  server.detach();
  await ended;
}

const nothing = (): Promise<void> => Promise.resolve();

describe("a TCP port", () => {
  test("in use, an address that is not here, and a name that is none", async () => {
    await withServer("tcp:0", async (path) => {
      const { port } = new URL(path);
      await expect(withServer(`tcp:${port}`, nothing)).rejects.toThrow(
        `cannot listen on 127.0.0.1, port ${port}: the port is in use, choose another`,
      );
    });
    await expect(withServer("tcp:192.0.2.1:0", nothing)).rejects.toThrow("no such address on this machine");
    await expect(withServer("tcp:no.such.invalid:0", nothing)).rejects.toThrow("no such host is known");
  });

  test.each(["tcp:localhost:0", "tcp:[::1]:0"])("%s is served", async (target) => {
    await withServer(target, async (path) => {
      const { hostname, port } = new URL(path);
      const host = hostname.replaceAll(/[[\]]/g, "");
      const greeting = Promise.withResolvers<number>();
      const socket = { data: (_: Bun.Socket, chunk: Uint8Array) => greeting.resolve(chunk.length) };
      const client = await Bun.connect({ hostname: host, port: Number(port), socket });
      expect(await greeting.promise).toBe(18);
      client.terminate();
    });
  });
});

test("attach() and serve() say when the target is the other's, and close the device", async () => {
  const device = new AsyncStore(4096);
  await expect(attach(device, "unix:/tmp/x")).rejects.toThrow("is not a node");
  expect(device.closed).toBe(true);
  await expect(serve(new AsyncStore(4096), "/dev/nbd0")).rejects.toThrow("is not an address");
});
