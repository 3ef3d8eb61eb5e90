/** Goal: signals end the program soon, whatever its device does, with a line that says what was lost. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import * as nbd from "../../../support/golden.ts";
import { writeFiles } from "../../../support/files.ts";
import { RawClient } from "../../../support/raw-client.ts";
import { until } from "../../../support/shell.ts";
import { STUBBORN, type Way } from "../../../support/stubborn.ts";
import { TemporaryDirectory } from "../../../support/temporary.ts";
import { commandOf } from "../tsbuse.ts";

let temporary: TemporaryDirectory;
let client: RawClient | undefined;
let program: Bun.Subprocess<"ignore", "pipe", "pipe"> | undefined;

beforeEach(() => {
  temporary = new TemporaryDirectory();
});
afterEach(async () => {
  client?.[Symbol.dispose]();
  program?.kill("SIGKILL");
  await program?.exited;
  temporary[Symbol.dispose]();
});

/** Serves the device and, if requested, calls the misbehaving method. Returns once it was called. */
async function start(
  method: string,
  how: Way,
  options: readonly string[],
  signals: () => void,
): Promise<string> {
  const module = writeFiles(temporary.path, { "disk.ts": STUBBORN });
  const called = temporary.join("called");
  const words = ["run", module, `unix:${temporary.join("s")}`, ...options];
  program = Bun.spawn(commandOf(...words, "--", `method=${method}`, `how=${how}`, `log=${called}`), {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const reader = program.stdout.getReader();
  const path = new TextDecoder().decode((await reader.read()).value).trim();
  const isRequest = method === "write";
  client = isRequest ? await RawClient.transmitting(path) : undefined;
  client?.send(nbd.encode({ command: nbd.WRITE, cookie: 1n, offset: 0, payload: new Uint8Array(512) }));
  if (!isRequest) signals();
  await until("the device is asked", () => existsSync(called));
  if (isRequest) signals();
  return path;
}

const LOST = "what was not written is lost";
const HELD_UP = `was cut off, since the program was held up: ${LOST}`;
const IN_FLIGHT = `was cut off with 1 request in flight: ${LOST}, check it`;
const NOT_FLUSHED = `was cut off before the last flush was done: ${LOST}, check it`;
const NOT_CLOSED = ": all data was written, but the device has not closed in time";

test.each<[string, Way, string]>([
  ["write", "promise", ` ${IN_FLIGHT}`],
  ["write", "loop", ` ${HELD_UP}`],
  ["write", "wait", ` ${HELD_UP}`],
  ["flush", "promise", ` ${NOT_FLUSHED}`],
  ["flush", "loop", ` ${HELD_UP}`],
  ["close", "promise", NOT_CLOSED],
  ["close", "wait", ` ${HELD_UP}`],
])(
  "a %s that hangs by a %s is ended by two signals, or by the time that it may take",
  async (method, how, said) => {
    for (const options of [[], ["--stop-timeout", "1"]]) {
      const path = await start(method, how, options, () => program?.kill("SIGTERM"));
      if (options.length === 0) program?.kill("SIGINT");
      expect(await program?.exited).toBe(1);
      expect(await program?.stderr.text()).toBe(`tsbuse: ${path}${said}\n`);
      temporary[Symbol.dispose]();
      temporary = new TemporaryDirectory();
    }
  },
);

test.each<[string, string]>([
  ["flush", "the last flush failed (Input/output error): what was written last may be lost, check it"],
  ["close", "the device failed to close: a bad day"],
])("a %s that fails at the end is exit status 1", async (method, said) => {
  const path = await start(method, "error", [], () => program?.kill("SIGTERM"));
  expect(await program?.exited).toBe(1);
  expect(await program?.stderr.text()).toContain(`tsbuse: ${path}: ${said}\n`);
});

test("who closes a terminal sends SIGHUP more than once: it cuts nothing off", async () => {
  await start("flush", "hangup", [], () => program?.kill("SIGHUP"));
  program?.kill("SIGHUP");
  expect(await program?.exited).toBe(0);
  expect(await program?.stderr.text()).toBe("");
});

test("a signal ends the start of a device that never comes", async () => {
  const slow = "console.log('loading'); await new Promise(() => setTimeout(() => {}, 1e9));";
  const module = writeFiles(temporary.path, { "disk.ts": slow });
  program = Bun.spawn(commandOf("run", module, `unix:${temporary.join("s")}`), {
    stdio: ["ignore", "pipe", "pipe"],
  });
  await program.stderr.getReader().read();
  program.kill("SIGTERM");
  await program.exited;
  expect(program.signalCode).toBe("SIGTERM");
});

test.each([
  ["while it loads", "process.exit(0);"],
  ["when a signal comes", "process.on('SIGTERM', () => process.exit(0)); console.log('loaded');"],
])("a module that ends the process %s fails", async (_, code) => {
  const text = `${code} export default { size: 4096, read() {} };`;
  const module = writeFiles(temporary.path, { "disk.ts": text });
  program = Bun.spawn(commandOf("run", module, `unix:${temporary.join("s")}`), {
    stdio: ["ignore", "pipe", "pipe"],
  });
  await program.stdout.getReader().read();
  program.kill("SIGTERM");
  expect(await program.exited).toBe(1);
  expect(await program.stderr.text()).toEndWith(
    `tsbuse: ${module} has ended the process: what was not written is lost\n`,
  );
});
