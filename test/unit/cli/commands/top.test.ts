/** Goal: "top" shows correct figures of devices in use, and trouble with one does not prevent showing the others. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { readFileSync, rmSync } from "node:fs";
import * as nbd from "../../../support/golden.ts";
import { pattern } from "../../../support/random.ts";
import { RawClient } from "../../../support/raw-client.ts";
import { Server } from "../../../support/server.ts";
import { until } from "../../../support/shell.ts";
import { TemporaryDirectory } from "../../../support/temporary.ts";
import { commandOf, execute, expectLine, tsbuse } from "../tsbuse.ts";

const RUN = process.geteuid?.() === 0 ? "/run" : process.env["XDG_RUNTIME_DIR"];
const BLOCK = 4096;
const DELAY_MS = 40;
const LIMIT_MS = 60_000;
/** Switches to the alternate screen without a cursor, and back. */
const ENTER = "\x1b[?1049h\x1b[?25l";
const LEAVE = "\x1b[?25h\x1b[?1049l";

const directory = new TemporaryDirectory();
const SLOW = `unix:${directory.join("slow.sock")}`;
const PLAIN = `unix:${directory.join("plain.sock")}`;
let slow: Server;
let plain: Server;

beforeAll(async () => {
  const layers = ["--layer", "error:errno=ENOSPC,command=write", "--layer", `delay:read=${DELAY_MS}`];
  slow = await Server.startBy(commandOf(), ["ramdisk", "1M", SLOW, ...layers]);
  plain = await Server.startBy(commandOf(), ["ramdisk", "1M", PLAIN]);
}, LIMIT_MS);

afterAll(async () => {
  for (const server of [slow, plain]) await server.stop("SIGKILL");
  directory[Symbol.dispose]();
});

interface Device {
  readonly path: string | null;
  readonly pid: number;
  readonly state: string;
  readonly reason: string | null;
  readonly errorsTotal: object;
  readonly oldest: { readonly kind: string; readonly seconds: number } | null;
  readonly layers: readonly object[];
  readonly rates: {
    readonly depth: number;
    readonly kinds: Record<string, Record<string, number> & { device: Record<string, number> }>;
    readonly layers: readonly {
      readonly name: string;
      readonly requests: number;
      readonly microseconds: number;
    }[];
    readonly heat: { readonly read: readonly number[] };
  } | null;
}

/** A running "top --json", and its ticks so far. */
class Top implements AsyncDisposable {
  readonly ticks: { readonly seconds: number; readonly devices: readonly Device[] }[] = [];
  readonly process;

  constructor(...words: readonly string[]) {
    const command = commandOf("top", "--json", "--interval", "0.1", ...words);
    this.process = Bun.spawn(command, { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
    void this.#read(this.process.stdout);
  }

  /** The figures of a server's device, tick by tick. */
  of({ pid }: { readonly pid: number }): Device[] {
    return this.ticks.flatMap(({ devices }) => devices.filter((device) => device.pid === pid));
  }

  /** Waits until the last tick is as expected. */
  async until(
    what: string,
    server: { readonly pid: number },
    isIt: (device: Device) => boolean,
  ): Promise<void> {
    await until(what, () => this.of(server).slice(-1).some(isIt), LIMIT_MS);
  }

  async #read(stream: ReadableStream<Uint8Array>): Promise<void> {
    let text = "";
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      const lines = (text + decoder.decode(chunk, { stream: true })).split("\n");
      text = lines.pop() ?? "";
      for (const line of lines) this.ticks.push(JSON.parse(line));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.process.kill("SIGKILL");
    await this.process.exited;
  }
}

const isServing = ({ state }: Device): boolean => state === "serving";

test(
  "what was asked of a device is counted, timed and charged to the layer that took the time",
  async () => {
    await using top = new Top(SLOW);
    await top.until("the first figures", slow, isServing);
    const [READS, WRITES] = [12, 5];
    const requests = [
      ...Array.from({ length: READS }, (_, index): nbd.Request => {
        return { command: nbd.READ, cookie: BigInt(index), offset: index * 65_536, length: BLOCK };
      }),
      ...Array.from({ length: WRITES }, (_, index): nbd.Request => {
        return { command: nbd.WRITE, cookie: BigInt(100 + index), offset: 0, payload: pattern(BLOCK) };
      }),
    ];
    using client = await RawClient.transmitting(slow.path);
    const began = performance.now();
    client.send(nbd.encodeAll(requests));
    await client.take(requests.length * 16 + READS * BLOCK);
    const tookUs = (performance.now() - began) * 1000;
    const sum = (kind: string, name: string): number =>
      top.of(slow).reduce((total, { rates }) => total + (rates?.kinds[kind]?.[name] ?? 0), 0);
    await until(
      "all are counted",
      () => sum("read", "requests") + sum("write", "requests") >= READS + WRITES,
      LIMIT_MS,
    );
    expect([sum("read", "requests"), sum("read", "errors")]).toEqual([READS, 0]);
    expect([sum("write", "requests"), sum("write", "errors")]).toEqual([WRITES, WRITES]);
    expect(top.of(slow).at(-1)?.errorsTotal).toEqual({ ENOSPC: WRITES });
    for (const { rates } of top.of(slow)) {
      const { p50 = Number.NaN, p99, max } = rates?.kinds["read"]?.device ?? {};
      if (rates?.kinds["read"] === undefined) continue;
      // A timer may be early by less than a millisecond, and a reported time is at most an eighth too long.
      expect(p50).toBeGreaterThanOrEqual((DELAY_MS - 1) * 1000);
      expect(max).toBeLessThanOrEqual(tookUs);
      expect(p99).toBeLessThanOrEqual(tookUs);
      const [error, delay, device] = rates.layers;
      expect([error?.name, delay?.name, device?.name]).toEqual(["error", "delay", "device"]);
    }
    const heat = top.of(slow).reduce((total, { rates }) => total + (rates?.heat.read[4] ?? 0), 0);
    expect(heat).toBe(BLOCK);
    const delayed = top.of(slow).flatMap(({ rates }) => rates?.layers[1] ?? []);
    const longest = Math.max(...delayed.map(({ microseconds }) => microseconds));
    expect(longest).toBeGreaterThanOrEqual((DELAY_MS - 1) * 1000);
  },
  LIMIT_MS,
);

test(
  "one that is stopped is shown as such, the others go on, and it comes back",
  async () => {
    await using top = new Top();
    await top.until("the first figures", slow, isServing);
    process.kill(slow.pid, "SIGSTOP");
    try {
      await top.until("it is silent", slow, ({ state }) => state === "silent");
      const before = top.of(plain).filter(isServing).length;
      await until("three more ticks", () => top.of(plain).filter(isServing).length >= before + 3, LIMIT_MS);
    } finally {
      process.kill(slow.pid, "SIGCONT");
    }
    await top.until("it is back", slow, isServing);
  },
  LIMIT_MS,
);

test(
  "one that comes is shown, and one that goes is not",
  async () => {
    await using top = new Top();
    const other = await Server.startBy(commandOf(), ["deadbeef", `unix:${directory.join("other.sock")}`]);
    await top.until("it is shown", other, isServing);
    await other.stop("SIGKILL");
    await until(
      "it is gone",
      () => top.ticks.at(-1)?.devices.every(({ pid }) => pid !== other.pid) === true,
      LIMIT_MS,
    );
  },
  LIMIT_MS,
);

const OLD_PID = 4_194_305;
const OLD = `${RUN}/tsbuse/${OLD_PID}.sock`;
const answerOfOld = (line: string): string =>
  line.includes("status") ? '{"path":"/dev/nbd77"}' : '{"error":"this version, 0.0.1, knows no command"}';
afterEach(() => rmSync(OLD, { force: true }));

test(
  "one of another version is named, and one that says nonsense does no harm",
  async () => {
    let answers = answerOfOld;
    const listener = Bun.listen({
      unix: OLD,
      socket: { data: (socket, bytes) => void socket.write(`${answers(bytes.toString())}\n`) },
    });
    try {
      await using top = new Top();
      await top.until("it is named", { pid: OLD_PID }, ({ state, path, reason }) => {
        return state === "other" && path === "/dev/nbd77" && reason?.includes("0.0.1") === true;
      });
      for (const nonsense of ["", "[]", '{"layout":1,"cells":"no"}', '{"layout":7}', "\0\0"]) {
        answers = () => nonsense;
        const before = top.of(plain).length;
        await until("a tick", () => top.of(plain).length > before + 1, LIMIT_MS);
      }
      expect(top.process.exitCode).toBeNull();
    } finally {
      listener.stop(true);
    }
  },
  LIMIT_MS,
);

test("elsewhere than on a terminal it prints frames, of 80 columns", () => {
  const { status, stdout, stderr } = tsbuse("top", PLAIN, "--count", "2", "--interval", "0.1");
  expect([status, stderr]).toEqual([0, ""]);
  expect(stdout.split("\n").filter((line) => line.startsWith("tsbuse top"))).toHaveLength(2);
  expect(stdout).toContain(PLAIN);
  expect(stdout.split("\n").filter((line) => line.length > 80 || line.includes("\x1b"))).toEqual([]);
});

test("who is gone is not told of", () => {
  const words = commandOf("top", "--json", "--interval", "0.1").join(" ");
  const { status, stdout, stderr } = execute(["sh", "-c", `{ ${words}; echo $? >&2; } | head -n 1 | wc -l`]);
  expect([status, stdout.trim(), stderr.trim()]).toEqual([0, "1", "0"]);
});

test.each([
  ["q", 0],
  ["\x03", 130],
])(
  "on a terminal %j ends it, with the screen as it was",
  async (key, status) => {
    const command = commandOf("top", "--interval", "0.1").join(" ");
    const process = Bun.spawn(["script", "-qefc", command, "/dev/null"], { stdin: "pipe", stdout: "pipe" });
    let text = "";
    for await (const chunk of process.stdout) {
      if (text === "" || !text.includes("q: quit")) {
        text += new TextDecoder().decode(chunk);
        if (text.includes("q: quit")) await process.stdin.write(key);
      } else {
        text += new TextDecoder().decode(chunk);
      }
    }
    expect(await process.exited).toBe(status);
    expect(text.slice(0, ENTER.length)).toBe(ENTER);
    expect(text.slice(-LEAVE.length)).toBe(LEAVE);
  },
  LIMIT_MS,
);

test(
  "a terminal that takes nothing does not keep a signal from ending it",
  async () => {
    const file = directory.join("pid");
    const command = commandOf("top", "--interval", "0.1").join(" ");
    const script = `echo $$ > ${file}; exec ${command} < /dev/null`;
    const terminal = Bun.spawn(["script", "-qefc", script, "/dev/null"], { stdin: "pipe", stdout: "pipe" });
    let length = 0;
    const read = (async () => {
      for await (const chunk of terminal.stdout) length += chunk.length;
    })();
    await until("it has drawn", () => length > 3 * ENTER.length, LIMIT_MS);
    // Control-S.
    await terminal.stdin.write("\x13");
    let before = -1;
    const isStill = async (): Promise<boolean> => {
      before = length;
      await Bun.sleep(500);
      return length === before;
    };
    await until("nothing is taken any more", isStill, LIMIT_MS);
    process.kill(Number(readFileSync(file, "utf8")), "SIGTERM");
    expect(await terminal.exited).toBe(143);
    await read;
  },
  LIMIT_MS,
);

test.each([["--json"], []])("what cannot be printed is a line: %p", (...words) => {
  const command = commandOf("top", "--count", "1", "--interval", "0.1", ...words).join(" ");
  expectLine(execute(["sh", "-c", `${command} > /dev/full`]), 1, "No space left on device", "make room");
});

test.each([
  [1, "serves /dev/nbd4095", 'see "tsbuse list"', ["/dev/nbd4095"]],
  [2, '--interval "0" is invalid', "give seconds from 0.1", ["--interval", "0"]],
] as const)("a mistake is a line, with status %d: %s", (status, cause, remedy, words) => {
  expectLine(tsbuse("top", ...words), status, cause, remedy);
});
