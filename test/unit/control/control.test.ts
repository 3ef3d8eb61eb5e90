/** Goal: a serving process answers questions about its device, and no client can harm it. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, readdirSync, statSync } from "node:fs";
import { askServer, connectToServer, servingProcesses } from "../../../src/control/client.ts";
import { LINE_MAX } from "../../../src/control/connection.ts";
import { close } from "../../../src/libc/file.ts";
import { listenUnix } from "../../../src/libc/listen.ts";
import { Server } from "../../support/server.ts";
import { until } from "../../support/shell.ts";
import { TemporaryDirectory } from "../../support/temporary.ts";
import { commandOf, execute } from "../cli/tsbuse.ts";

// The same that the serving processes use.
const RUN = process.geteuid?.() === 0 ? "/run" : process.env["XDG_RUNTIME_DIR"];
const DIRECTORY = `${RUN}/tsbuse`;
const SIZE = 2 ** 20;
/** The maximum time until a loop that sleeps when idle notices a request. */
const IDLE_MS = 500;

const directory = new TemporaryDirectory();
const TARGET = `unix:${directory.join("disk.sock")}`;
let server: Server;

/** The socket of a process; in a container its name contains more than the number. */
function socketOf(pid: number): string {
  const name = readdirSync(DIRECTORY).find((each) => new RegExp(`^${pid}(-\\d+)?\\.sock$`).test(each));
  return `${DIRECTORY}/${name}`;
}

/** Connects, sends as much as the server takes, and collects the answers. */
class Rude {
  answers = "";
  isClosed = false;
  #socket: Bun.Socket | undefined;

  static async connect(bytes: Uint8Array): Promise<Rude> {
    const rude = new Rude();
    let sent = 0;
    const send = (socket: Bun.Socket): void => {
      sent += Math.max(0, socket.write(bytes.subarray(sent)));
    };
    rude.#socket = await Bun.connect({
      unix: socketOf(server.pid),
      socket: {
        open: send,
        drain: send,
        data: (_, answer) => void (rude.answers += answer.toString()),
        close: () => void (rude.isClosed = true),
        error: () => void (rude.isClosed = true),
      },
    });
    return rude;
  }

  [Symbol.dispose](): void {
    this.#socket?.terminate();
  }
}

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

async function expectAnswer(): Promise<void> {
  expect(await askServer(TARGET, "status")).toMatchObject({ pid: server.pid, size: SIZE });
}

beforeAll(async () => {
  server = await Server.startBy(commandOf(), ["ramdisk", `${SIZE}`, TARGET]);
});

afterAll(async () => {
  const socket = socketOf(server.pid);
  expect(await server.stop()).toBe(0);
  expect(existsSync(socket)).toBe(false);
  expect(await server.errors).toBe("");
  directory[Symbol.dispose]();
});

test("a server says what it serves; nobody but its user is let in", async () => {
  expect(await askServer(TARGET, "status")).toMatchObject({
    pid: server.pid,
    version: expect.stringMatching(/^\d+\.\d+\.\d+/),
    path: server.path,
    size: SIZE,
    blockSize: 512,
    readOnly: false,
    identity: null,
    words: ["ramdisk", `${SIZE}`, TARGET],
    inFlight: 0,
    statistics: { requests: 0, errors: 0, bytesRead: 0, bytesWritten: 0 },
  });
  expect(statSync(socketOf(server.pid)).mode & 0o777).toBe(0o600);
});

test("a server that sleeps for requests is woken", async () => {
  const times: number[] = [];
  for (let round = 0; round < 20; round += 1) {
    const began = performance.now();
    await expectAnswer();
    times.push(performance.now() - began);
  }
  // One signal in many comes just before the sleep. If none came at all, two connections would take two sleeps.
  expect(times.toSorted((a, b) => a - b)[10]).toBeLessThan(IDLE_MS);
});

test.each<[string, string, unknown]>([
  ["nothing", "", "JSON"],
  ["no object", "[1]", "object"],
  ["no command", "{}", "knows no command undefined"],
  ["another version's command", '{"command":"fly"}', 'knows no command "fly"'],
  ["what every object has", '{"command":"constructor"}', "knows no command"],
])("a request that is %s is refused, and the next one answered", async (_, line, why) => {
  using rude = await Rude.connect(bytes(`${line}\n{"command":"status"}\n`));
  await until("two answers", () => rude.answers.split("\n").length === 3);
  const [refused = "", answered = ""] = rude.answers.split("\n");
  expect(JSON.parse(refused)).toEqual({ error: expect.stringContaining(String(why)) });
  expect(JSON.parse(answered)).toMatchObject({ pid: server.pid });
});

test("a request without end is not waited for", async () => {
  using rude = await Rude.connect(new Uint8Array(100 * LINE_MAX).fill(0x41));
  await until("the end", () => rude.isClosed);
  await expectAnswer();
});

test("a thousand who say nothing, or never read, keep nobody else out", async () => {
  const question = bytes('{"command":"status"}\n'.repeat(1000));
  const crowd = await Promise.allSettled(
    Array.from({ length: 1000 }, (_, index) => Rude.connect(index % 2 === 0 ? bytes("{") : question)),
  );
  await expectAnswer();
  const { pid } = server;
  expect(readdirSync(`/proc/${pid}/fd`).length).toBeLessThan(100);
  for (const rude of crowd) if (rude.status === "fulfilled") rude.value[Symbol.dispose]();
}, 30_000);

test("all who have asked while it was held up are answered", async () => {
  process.kill(server.pid, "SIGSTOP");
  const crowd: Rude[] = [];
  try {
    for (let index = 0; index < 40; index += 1)
      crowd.push(await Rude.connect(bytes('{"command":"status"}\n')));
  } finally {
    process.kill(server.pid, "SIGCONT");
  }
  await until("all have an answer, or the end", () =>
    crowd.every((each) => each.isClosed || each.answers !== ""),
  );
  expect(crowd.filter(({ answers }) => answers.includes(`"pid":${server.pid}`))).toHaveLength(crowd.length);
  for (const each of crowd) each[Symbol.dispose]();
}, 60_000);

test("one that is stopped is told apart from one that is not there", async () => {
  await expect(askServer("/dev/nbd4095", "status")).rejects.toThrow(/^no process of tsbuse serves/);
  process.kill(server.pid, "SIGSTOP");
  try {
    await expect(askServer(TARGET, "status")).rejects.toThrow(`process ${server.pid}`);
  } finally {
    process.kill(server.pid, "SIGCONT");
  }
  await expectAnswer();
}, 30_000);

test("one that ends between two questions is not waited for", async () => {
  const target = `unix:${directory.join("c.sock")}`;
  const other = await Server.startBy(commandOf(), ["deadbeef", target]);
  using client = await connectToServer(target);
  expect(await client.ask("status")).toMatchObject({ pid: other.pid });
  await other.stop("SIGKILL");
  await Bun.sleep(0);
  await expect(client.ask("status", {}, 600_000)).rejects.toThrow(`process ${other.pid} has ended`);
}, 30_000);

test("what a killed server leaves behind is removed by whoever finds it", async () => {
  const other = await Server.startBy(commandOf(), ["deadbeef", `unix:${directory.join("b.sock")}`]);
  const socket = socketOf(other.pid);
  await other.stop("SIGKILL");
  expect(existsSync(socket)).toBe(true);
  // Also a socket on which its process never began to listen.
  const stale = `${DIRECTORY}/4194305.sock`;
  close(listenUnix(stale));
  const found = await servingProcesses();
  expect(found.map(({ socket: { pid } }) => pid)).toContain(server.pid);
  expect([socket, stale].filter((path) => existsSync(path))).toEqual([]);
});

test.skipIf(process.geteuid?.() !== 0)("a /run that is read-only: the device is served, with a line", () => {
  const words = commandOf("ramdisk", "1M", `unix:${directory.join("c.sock")}`, "--run", "true");
  const script = 'mount -t tmpfs -o ro none /run; exec "$@"';
  const { status, stderr } = execute(["unshare", "-m", "sh", "-c", script, "sh", ...words]);
  expect(status).toBe(0);
  expect(stderr).toMatch(/^tsbuse: .*no other command can ask about it: .*\n$/);
});
