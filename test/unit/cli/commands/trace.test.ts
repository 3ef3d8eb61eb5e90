/** `tsbuse trace` and `replay` of a server: a tracer gets everything or learns how much is missing; it never delays. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { closeSync, openSync, readFileSync, statSync, writeFileSync } from "node:fs";
import type { BlockDevice } from "../../../../src/device.ts";
import { connectNbd } from "../../../../src/nbd/client/device.ts";
import { Server } from "../../../support/server.ts";
import { run, until } from "../../../support/shell.ts";
import { TemporaryDirectory } from "../../../support/temporary.ts";
import { Tracer } from "../../../support/tracer.ts";
import { commandOf, type Ended, execute, expectLine, tsbuse } from "../tsbuse.ts";

const SIZE = 2 ** 20;
/** More than a ring holds. */
const MANY = 20_000;
const AT_ONCE = 128;
const LIMIT_MS = 60_000;

let directory: TemporaryDirectory;
let target: string;
let server: Server;
let client: BlockDevice;
beforeEach(async () => {
  directory = new TemporaryDirectory();
  target = `unix:${directory.join("disk.sock")}`;
  server = await Server.startBy(commandOf(), ["ramdisk", `${SIZE}`, target]);
  client = await connectNbd(target);
});
afterEach(async () => {
  await client.close?.();
  await server.stop("SIGKILL");
  directory[Symbol.dispose]();
});

function sector(value: number): Uint8Array {
  return new Uint8Array(512).fill(value);
}

async function readMany(): Promise<void> {
  for (let done = 0; done < MANY; done += AT_ONCE)
    await Promise.all(
      Array.from({ length: Math.min(AT_ONCE, MANY - done) }, (_, index) =>
        client.read(sector(0), index * 512),
      ),
    );
}

function trace(...words: readonly string[]): Ended {
  return tsbuse("trace", target, ...words);
}

function startTracer(...words: readonly string[]): Promise<Tracer> {
  return Tracer.startBy(commandOf(), [target, ...words]);
}

test(
  "two who trace are told the same; --count and --command choose",
  async () => {
    const tracers = [await startTracer(), await startTracer(), await startTracer("--command", "read,trim")];
    const counting = await startTracer("--count", "2");
    await client.write?.(sector(1), 512, { fua: false });
    await client.read(sector(0), 1024);
    await client.trim?.(4096, 8192, { fua: false });
    expect(await counting.ended()).toBe(0);
    for (const tracer of tracers) expect(await tracer.stop("SIGINT")).toBe(0);
    const [all, again, some] = tracers.map(({ lines }) =>
      lines.map((line) => line.split(" ").slice(1, 6).join(" ")),
    );
    expect(all).toEqual(["0 write 1 + 1", "0 read 2 + 1", "0 trim 8 + 16"]);
    expect(again).toEqual(all ?? []);
    expect(some).toEqual(all?.slice(1) ?? []);
    expect(counting.lines).toHaveLength(2);
  },
  LIMIT_MS,
);

test(
  "one that is stopped is told how much it has missed, and one that is killed is forgotten",
  async () => {
    const [stopped, killed] = [await startTracer(), await startTracer()];
    process.kill(stopped.pid, "SIGSTOP");
    expect(await killed.stop("SIGKILL")).toBe(137);
    // The device does not wait.
    await readMany();
    process.kill(stopped.pid, "SIGCONT");
    await until(
      "what is left is told",
      () => stopped.lines.some((line) => line.includes(" read ")),
      LIMIT_MS,
    );
    expect(await stopped.stop("SIGINT")).toBe(0);
    const lost = /^(\d+) requests were not traced: the reader is too slow$/;
    const line = stopped.lines.find((each) => lost.test(each)) ?? "";
    const missing = Number(lost.exec(line)?.[1]);
    expect(missing).toBeGreaterThan(0);
    expect(stopped.told("read").length + missing).toBe(MANY);
    expect(await stopped.errors).toBe(`tsbuse: warning: ${line}\n`);
  },
  LIMIT_MS,
);

test(
  "--seconds ends it, with the status of success",
  async () => {
    const { status, stdout, stderr } = await run(commandOf("trace", target, "--seconds", "1"), LIMIT_MS);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(stdout).toMatch(/^ +TIME Q COMMAND[^\n]*\n$/);
  },
  2 * LIMIT_MS,
);

test(
  "nobody reads what is traced: it ends all the same when it is told to",
  async () => {
    const fifo = directory.join("fifo");
    execute(["mkfifo", fifo]);
    const fd = openSync(fifo, "r+");
    try {
      const tracer = Bun.spawn(commandOf("trace", target), { stdin: "ignore", stdout: fd, stderr: "pipe" });
      await until(
        "it has begun",
        () => execute(["timeout", "1", "head", "-c", "1", fifo]).stdout !== "",
        LIMIT_MS,
      );
      await readMany();
      tracer.kill("SIGINT");
      expect(await tracer.exited).toBe(0);
      expect(await tracer.stderr.text()).toContain("what was traced last is missing: nobody reads it");
    } finally {
      closeSync(fd);
    }
  },
  LIMIT_MS,
);

test(
  "the device's end, and that of the reader, are those of the trace",
  async () => {
    const tracer = await startTracer();
    const piped = Bun.spawn(["sh", "-c", '"$@" | head -n 2', "sh", ...commandOf("trace", target)], {
      stderr: "pipe",
    });
    const reads: unknown[] = [];
    const timer = setInterval(() => reads.push(client.read(sector(0), 0)), 10);
    expect(await piped.exited).toBe(0);
    clearInterval(timer);
    await Promise.all(reads);
    expect(await piped.stderr.text()).toBe("");
    await client.close?.();
    expect(await server.stop("SIGKILL")).toBe(137);
    expect(await tracer.ended()).toBe(0);
    expect(await tracer.errors).toContain(`${target} is not served by process ${server.pid} any more`);
  },
  LIMIT_MS,
);

test(
  "a file of it, with the bytes: what was written is written again, and crash takes it",
  async () => {
    const [file, json, disk] = ["disk.trace", "disk.json", "disk.img"].map((name) => directory.join(name));
    const recorder = Bun.spawn(commandOf("trace", target, "--data", "--write", `${file}`), {
      stdout: "pipe",
    });
    const printer = Bun.spawn(commandOf("trace", target, "--json"), { stdout: Bun.file(`${json}`) });
    const printed = (): string[] => readFileSync(`${json}`, "utf8").split("\n").slice(0, -1);
    // The record has its header once it begins.
    await until("one has begun", () => statSync(`${file}`, { throwIfNoEntry: false })?.size === 64, LIMIT_MS);
    const probe = setInterval(() => void client.read(sector(0), 0), 10);
    await until("the other has begun", () => printed().length > 0, LIMIT_MS);
    clearInterval(probe);
    for (const value of [1, 2, 3]) await client.write?.(sector(value), value * 1024, { fua: false });
    await until("all is printed", () => printed().at(-1)?.includes('"offset":3072') === true, LIMIT_MS);
    for (const each of [recorder, printer]) each.kill("SIGINT");
    expect([await recorder.exited, await printer.exited]).toEqual([0, 0]);
    expect(await recorder.stdout.text()).toMatch(/disk\.trace: \d+ requests\n$/);
    expect(
      printed()
        .slice(-3)
        .map((line) => JSON.parse(line)),
    ).toEqual(
      [1, 2, 3].map((value) => ({
        time: expect.any(Number),
        queue: 0,
        command: "write",
        offset: value * 1024,
        length: 512,
        fua: false,
        queued: expect.any(Number),
        device: expect.any(Number),
        error: null,
      })),
    );
    const replay = (...more: readonly string[]): Ended => tsbuse("replay", `${file}`, ...more);
    expectLine(replay(`${disk}`), 1, "does not exist", "check the name");
    writeFileSync(`${disk}`, new Uint8Array(2048));
    expectLine(
      replay(`${disk}`, "--destroy"),
      1,
      "has 2048 bytes, and the requests go up to 3584",
      "give a disk",
    );
    writeFileSync(`${disk}`, new Uint8Array(SIZE));
    expectLine(replay(`${disk}`), 2, "the replay would overwrite", "add --destroy");
    expectLine(replay("loop"), 2, "an argument is missing", "give tsbuse replay FILE loop FILE");
    expectLine(replay(`${disk}`, "1M"), 2, 'unexpected argument "1M"', "leave it out");
    expect(replay(`${disk}`, "--destroy")).toMatchObject({
      status: 0,
      stdout: expect.stringMatching(/^write +3 +0 /m),
    });
    const written = readFileSync(`${disk}`);
    expect([1, 2, 3].map((value) => written[value * 1024 + 511])).toEqual([1, 2, 3]);
    expect(replay("ramdisk", "--fast", "--layer", "cow")).toMatchObject({ status: 0, stderr: "" });
    const untouched = replay(`${disk}`, "--reads");
    expect(untouched).toMatchObject({ status: 0, stdout: expect.not.stringContaining("write") });
    const states = tsbuse("crash", `${file}`, "--check", "true", "--states", "5");
    expect(states).toMatchObject({ status: 0, stdout: expect.stringContaining("no fault found") });
  },
  LIMIT_MS,
);

test.each([
  [["--data"], 2, "--data needs a file", "give --write FILE"],
  [["--json", "--write", "x"], 2, "exclude each other", "leave out one"],
  [["--data", "--write", "x", "--command", "read"], 2, "is for all that was changed", "leave out"],
  [["--command", "reed"], 2, 'knows no "reed"', 'did you mean "read"?'],
  [["--write", "/"], 1, "/ cannot be made", "choose another place"],
] as const)("%p", (words, status, cause, remedy) => expectLine(trace(...words), status, cause, remedy));

test(
  "what cannot be traced, or be made a trace of",
  () => {
    const file = directory.join("full");
    writeFileSync(file, "x");
    expectLine(trace("--write", file), 1, "is there already", "give another name");
    expectLine(tsbuse("trace", `${target}2`), 1, "no process of tsbuse serves", "tsbuse list");
    expectLine(tsbuse("replay", file, "ramdisk"), 1, "is not a record of tsbuse", "tsbuse trace has made");
  },
  LIMIT_MS,
);
