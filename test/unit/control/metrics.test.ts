/** Goal: a serving process reports its metrics over HTTP, and no client harms it, even one that never reads. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { MetricsServer, parseMetricsAddress } from "../../../src/control/metrics-server.ts";
import { close } from "../../../src/libc/file.ts";
import { tryUnix } from "../../../src/libc/socket.ts";
import * as nbd from "../../support/golden.ts";
import { pattern } from "../../support/random.ts";
import { RawClient } from "../../support/raw-client.ts";
import { Server } from "../../support/server.ts";
import { until } from "../../support/shell.ts";
import { TemporaryDirectory } from "../../support/temporary.ts";
import { commandOf, expectLine, tsbuse } from "../cli/tsbuse.ts";

const BLOCK = 4096;
const LIMIT_MS = 60_000;
/** More clients than are served at once. */
const CROWD = 40;

const directory = new TemporaryDirectory();
const SOCKET = directory.join("metrics.sock");
const TARGET = `unix:${directory.join("disk.sock")}`;
let server: Server;

beforeAll(async () => {
  const layer = ["--layer", "error:errno=ENOSPC,command=write"];
  const words = ["ramdisk", "1M", TARGET, "--metrics", `unix:${SOCKET}`, ...layer];
  server = await Server.startBy(commandOf(), words);
}, LIMIT_MS);

afterAll(async () => {
  expect(await server.stop()).toBe(0);
  expect(readdirSync(directory.path)).toEqual([]);
  directory[Symbol.dispose]();
}, LIMIT_MS);

function get(path = "/metrics", method = "GET"): Promise<Response> {
  return fetch(`http://localhost${path}`, { unix: SOCKET, method });
}

/** The value of a sample with these labels and that of the device. */
function valueOf(text: string, name: string, labels = ""): number {
  const line = text.split("\n").find((each) => each.startsWith(`${name}{`) && each.includes(labels));
  return Number(line?.split(" ").at(-1));
}

test("what was asked for is there, with its errors and in its buckets", async () => {
  using client = await RawClient.transmitting(server.path);
  const requests: nbd.Request[] = [
    { command: nbd.READ, cookie: 1n, offset: 0, length: BLOCK },
    { command: nbd.READ, cookie: 2n, offset: BLOCK, length: 2 * BLOCK },
    { command: nbd.WRITE, cookie: 3n, offset: 0, payload: pattern(BLOCK) },
    { command: nbd.WRITE, flags: nbd.FUA, cookie: 4n, offset: 0, payload: pattern(BLOCK) },
  ];
  client.send(nbd.encodeAll(requests));
  await client.take(requests.length * 16 + 3 * BLOCK);
  const response = await get();
  expect(response.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
  const text = await response.text();
  expect(valueOf(text, "tsbuse_requests_total", 'command="read"')).toBe(2);
  expect(valueOf(text, "tsbuse_request_bytes_total", 'command="read"')).toBe(3 * BLOCK);
  expect(valueOf(text, "tsbuse_request_errors_total", 'command="write"')).toBe(1);
  expect(valueOf(text, "tsbuse_request_errors_total", 'command="fua"')).toBe(1);
  expect(valueOf(text, "tsbuse_errors_total", 'errno="ENOSPC"')).toBe(1);
  // A device without a cache gets no FUA.
  expect(valueOf(text, "tsbuse_errors_total", 'errno="EINVAL"')).toBe(1);
  expect(valueOf(text, "tsbuse_size_bytes")).toBe(2 ** 20);
  for (const name of ["queue", "device"]) {
    const metric = `tsbuse_request_${name}_seconds`;
    const buckets = text
      .split("\n")
      .filter((line) => line.startsWith(`${metric}_bucket`) && line.includes('"read"'));
    const counts = buckets.map((line) => Number(line.split(" ").at(-1)));
    expect(counts).toEqual(counts.toSorted((a, b) => a - b));
    expect(counts.at(-1)).toBe(2);
    expect(buckets.at(-1)).toContain('le="+Inf"');
    expect(valueOf(text, `${metric}_count`, 'command="read"')).toBe(2);
  }
});

test.each([
  ["/", "GET", 404],
  ["/metrics?x=1", "GET", 200],
  ["/metrics", "HEAD", 200],
  ["/metrics", "POST", 405],
])("%s by %s is %d", async (path, method, status) => {
  const response = await get(path, method);
  expect(response.status).toBe(status);
  expect(response.headers.get("allow")).toBe("GET, HEAD");
  expect((await response.text()) === "").toBe(method === "HEAD");
});

/** Sends a request at once. Returns everything up to the end of the answer. */
async function ask(): Promise<{ readonly answer: Promise<string> }> {
  const { promise, resolve } = Promise.withResolvers<string>();
  let text = "";
  await Bun.connect({
    unix: SOCKET,
    socket: {
      open: (socket) => void socket.write("GET /metrics HTTP/1.1\r\n\r\n"),
      data: (_, bytes) => void (text += bytes.toString()),
      close: () => resolve(text),
      error: () => resolve(text),
    },
  });
  return { answer: promise };
}

/** Connects and sends something, but reads nothing. */
function rude(text: string): Promise<Bun.Socket> {
  return Bun.connect({
    unix: SOCKET,
    socket: {
      open: (socket) => {
        socket.pause();
        socket.write(text);
      },
      data: () => undefined,
      error: () => undefined,
    },
  });
}

test(
  "hundreds who say nothing, half a word, too much, or never read, keep nobody out",
  async () => {
    const words = [
      "",
      "GET /met",
      "x".repeat(100_000),
      "GET /metrics HTTP/1.1\r\n\r\n",
      "\0\r\n\r\n\r\n\r\n",
    ];
    const crowd: Bun.Socket[] = [];
    for (let round = 0; round < 60; round += 1) for (const word of words) crowd.push(await rude(word));
    expect((await get()).status).toBe(200);
    using client = await RawClient.transmitting(server.path);
    client.send(nbd.encodeAll([{ command: nbd.READ, cookie: 1n, offset: 0, length: BLOCK }]));
    await client.take(16 + BLOCK);
    await until("few are open", () => readdirSync(`/proc/${server.pid}/fd`).length < 100);
    for (const socket of crowd) socket.terminate();
  },
  LIMIT_MS,
);

test(
  "all who have asked while it was held up are answered",
  async () => {
    process.kill(server.pid, "SIGSTOP");
    const asked: Promise<string>[] = [];
    try {
      for (let index = 0; index < CROWD; index += 1) asked.push((await ask()).answer);
    } finally {
      process.kill(server.pid, "SIGCONT");
    }
    const answers = await Promise.all(asked);
    expect(answers.filter((text) => /^HTTP\/1.1 200 OK\r\n.*\n$/s.test(text))).toHaveLength(CROWD);
  },
  LIMIT_MS,
);

test("an address in use, or none, is a line, and nothing is left", () => {
  const other = `unix:${directory.join("other.sock")}`;
  expectLine(tsbuse("ramdisk", "1M", other, "--metrics", `unix:${SOCKET}`), 1, SOCKET, "choose another");
  for (const word of ["here", ":0", ":65536"])
    expectLine(tsbuse("ramdisk", "1M", other, "--metrics", word), 2, `--metrics "${word}"`, "give HOST:PORT");
  using listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => undefined } });
  const { port } = listener;
  expectLine(
    tsbuse("ramdisk", "1M", other, "--metrics", `:${port}`),
    1,
    `127.0.0.1, port ${port}`,
    "choose another",
  );
});

test("an address that the process before still has is waited for, where that is so meant", async () => {
  const path = directory.join("taken.sock");
  const before = Bun.listen({ unix: path, socket: { data: () => undefined } });
  using _ = await MetricsServer.listen({ kind: "unix", path, exportName: undefined }, true, undefined);
  before.stop(true);
  await until("somebody listens again", () => {
    const fd = tryUnix(path);
    if (fd >= 0) close(fd);
    return fd >= 0;
  });
});

const tcp = (host: string, port: number): unknown => ({ kind: "tcp", host, port, exportName: undefined });

test.each([
  [":9809", tcp("127.0.0.1", 9809)],
  ["9809", tcp("127.0.0.1", 9809)],
  ["0.0.0.0:9809", tcp("0.0.0.0", 9809)],
  ["[::1]:9809", tcp("::1", 9809)],
  ["host.example:80", tcp("host.example", 80)],
  ["unix:/run/m.sock", { kind: "unix", path: "/run/m.sock", exportName: undefined }],
  ["unix:", undefined],
  [":65536", undefined],
  ["host", undefined],
  ["::1:80", undefined],
  ["", undefined],
])("the address %p", (text, address) => {
  expect<unknown>(parseMetricsAddress(text)).toEqual(address);
});
