/** Goal: a server serves its clients, and ends, even if nothing reads what it writes. */
import { expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { writeFiles } from "../support/files.ts";
import * as nbd from "../support/golden.ts";
import { RawClient } from "../support/raw-client.ts";
import { until } from "../support/shell.ts";
import { TemporaryDirectory } from "../support/temporary.ts";
import { UnreadPipe, UnreadSocket } from "../support/unread.ts";

const MAIN = [process.execPath, join(import.meta.dir, "../../src/main.ts")];
const READS = 3000;

/** What a case runs in. */
interface Place {
  readonly directory: string;
  readonly pipe: UnreadPipe;
  /** The whole command that serves a device there. */
  readonly command: (device: readonly string[], ...options: string[]) => string[];
}

/** Starts a server whose messages nothing waits for. */
type Start = (place: Place) => Bun.Subprocess;

const RAMDISK = ["ramdisk", "4M"];
const QUIET = { stdin: "ignore", stdout: "ignore", stderr: "ignore" } as const;
const PROMISING = `export default { size: 2 ** 22, async read() { await Bun.sleep(0); } };`;
const TALKING = `export default { size: 2 ** 22, read(target, offset) { console.log("read at", offset); } };`;

const piped =
  (of: "stdout" | "stderr", ...options: readonly string[]): Start =>
  ({ command, pipe }) =>
    Bun.spawn(command(RAMDISK, ...options), { ...QUIET, [of]: pipe.fd });

const pipedModule =
  (text: string, ...options: string[]): Start =>
  ({ command, directory, pipe }) => {
    const module = ["run", writeFiles(directory, { "disk.ts": text })];
    return Bun.spawn(command(module, ...options), { ...QUIET, stdout: pipe.fd, stderr: pipe.fd });
  };

function pipedLayer({ command, pipe }: Place): Bun.Subprocess {
  return Bun.spawn(command(RAMDISK, "--layer", `log:file=${pipe.path}`), QUIET);
}

/** @param keys are typed before it starts. */
const onTerminal =
  (script: string, keys: string): Start =>
  ({ command }) => {
    const terminal = new Bun.Terminal({});
    terminal.write(keys);
    // Of a session of its own, it is the terminal that sends signals.
    const shell = ["setsid", "--ctty", "--wait", "/bin/sh", "-c", script];
    return Bun.spawn([...shell, ...command(RAMDISK, "--verbose")], { terminal });
  };

const CTRL_S = "\x13";

test.each<[string, Start]>([
  ["stderr: a line for each request", piped("stderr", "--verbose")],
  ["stderr: a line of a layer for each request", piped("stderr", "--layer", "log")],
  ["stderr: a line for each request, which takes the event loop", pipedModule(PROMISING, "--verbose")],
  ["stdout and stderr: what a module prints", pipedModule(TALKING)],
  ["stdout: that it is ready", piped("stdout")],
  ["a pipe that a layer writes to", pipedLayer],
  ["a terminal that was stopped", onTerminal('exec "$0" "$@"', CTRL_S)],
  [
    "a terminal that stops who writes in the background",
    onTerminal('stty tostop; set -m; "$0" "$@" & wait $!', ""),
  ],
])(
  "%s",
  async (_, start) => {
    using directory = new TemporaryDirectory();
    using pipe = new UnreadPipe(directory.join("pipe"));
    const [socket, pidFile] = [directory.join("s"), directory.join("pid")];
    const server = start({
      directory: directory.path,
      pipe,
      command: (device, ...options) => [
        ...MAIN,
        ...device,
        `unix:${socket}`,
        "--pid-file",
        pidFile,
        ...options,
      ],
    });
    const end = (signal: NodeJS.Signals): boolean =>
      process.kill(Number(readFileSync(pidFile, "utf8")), signal);
    try {
      await until("it is ready", () => existsSync(pidFile));
      await serves(`nbd+unix:///?socket=${socket}`);
      end("SIGTERM");
      expect(await server.exited).toBe(0);
    } finally {
      if (existsSync(pidFile)) end("SIGKILL");
    }
  },
  30_000,
);

test("a service manager that is behind is told later", async () => {
  using directory = new TemporaryDirectory();
  const [path, socket] = [directory.join("notify"), directory.join("s")];
  using manager = new UnreadSocket(path);
  const env = { ...process.env, NOTIFY_SOCKET: path };
  const server = Bun.spawn([...MAIN, ...RAMDISK, `unix:${socket}`], { ...QUIET, env });
  try {
    await until("it listens", () => existsSync(socket));
    await serves(`nbd+unix:///?socket=${socket}`);
    await until("it is told", () => manager.read().includes("READY=1"));
  } finally {
    server.kill("SIGKILL");
    await server.exited;
  }
});

/** Asks for more than any reader has room to be told of. */
async function serves(uri: string): Promise<void> {
  using client = await RawClient.transmitting(uri);
  const requests = Array.from({ length: READS }, (_, index): nbd.Request => ({
    command: nbd.READ,
    cookie: BigInt(index),
    offset: 512 * index,
    length: 512,
  }));
  const expected = READS * (nbd.REPLY_BYTES + 512);
  client.send(nbd.encodeAll(requests));
  expect(await client.size(expected)).toBe(expected);
}
