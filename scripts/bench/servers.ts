/** The servers of the native suite: how to start each on a Unix socket, with its best options. */
import { existsSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Failure } from "../lib/failure.ts";
import { ROOT } from "../lib/suites.ts";
import { binaryOf, compile } from "./compile.ts";
import { type Address, LOAD } from "./load.ts";
import { isRunning } from "./processes.ts";
import type { Contestant } from "./results.ts";

const MIB = 2 ** 20;
export const TSBUSE = join(ROOT, "dist/tsbuse");
const NBD_PEER = "nbd-peer";
/** Bytes of every device. */
export const SIZE = 256 * MIB;
const START_LIMIT_MS = 20_000;
const STOP_LIMIT_MS = 10_000;

/** The files of a server. */
export interface Place {
  readonly socket: string;
  /** The image that it serves, if it serves one. */
  readonly file: string;
  readonly configuration: string;
  readonly pidFile: string;
}

/** A contestant of the native suite. */
export interface Server extends Contestant {
  readonly command: (place: Place) => readonly string[];
  /** Creates what it needs before it starts. */
  readonly prepare?: (place: Place) => void;
  /** Set for a server that goes to the background and writes its process ID to `place.pidFile`. */
  readonly detaches?: true;
  /** Bytes of data in its own memory once the whole disk is written. */
  readonly stores: number;
}

const EXPORT_NAMES: Readonly<Record<string, string>> = { "nbd-server": "bench" };

function makeFile({ file }: Place): void {
  writeFileSync(file, "");
  truncateSync(file, SIZE);
}

export function tsbuse(id: string, words: readonly string[], stores = 0): Server {
  return {
    id,
    kind: "ours",
    prepare: makeFile,
    command: ({ socket, file }) => [
      TSBUSE,
      ...words.map((word) => (word === "FILE" ? file : word)),
      `unix:${socket}`,
    ],
    stores,
  };
}

export function nbdkit(plugin: "memory" | "file"): Server {
  return {
    id: "nbdkit",
    kind: "peer",
    prepare: makeFile,
    command: ({ socket, file }) => [
      "nbdkit",
      "--foreground",
      "--unix",
      socket,
      ...(plugin === "memory" ? ["memory", String(SIZE)] : ["file", file]),
    ],
    stores: plugin === "memory" ? SIZE : 0,
  };
}

export function qemuNbd(options: readonly string[] = []): Server {
  return {
    id: "qemu-nbd",
    kind: "peer",
    prepare: makeFile,
    command: ({ socket, file }) => [
      "qemu-nbd",
      "--socket",
      socket,
      "--persistent",
      "--format",
      "raw",
      "--discard",
      "unmap",
      ...options,
      file,
    ],
    stores: 0,
  };
}

export function nbdServer(): Server {
  return {
    id: "nbd-server",
    kind: "peer",
    prepare: (place) => {
      makeFile(place);
      const generic = ["[generic]", `unixsock = ${place.socket}`, "allowlist = true"];
      const own = ["[bench]", `exportname = ${place.file}`, "trim = true", "flush = true"];
      writeFileSync(place.configuration, `${[...generic, ...own].join("\n")}\n`);
    },
    command: ({ configuration, pidFile }) => ["nbd-server", "-C", configuration, "-p", pidFile],
    detaches: true,
    stores: 0,
  };
}

/** Not a server of blocks: the limit of the generator and a pair of sockets. */
export function nullServer(): Server {
  return {
    id: "null",
    kind: "ceiling",
    command: ({ socket }) => [LOAD, "null", socket, String(SIZE)],
    stores: 0,
  };
}

/** The same loop in C: the limit for tsbuse. Call {@link buildNbdInC} first. */
export function nbdInC(): Server {
  return {
    id: "nbd in C",
    kind: "ceiling",
    does: ["tsbuse"],
    command: ({ socket }) => [binaryOf(NBD_PEER), socket, String(SIZE)],
    stores: SIZE,
  };
}

/** @throws Failure */
export function buildNbdInC(): Promise<void> {
  return compile(NBD_PEER);
}

/** The places of a group: sockets in `directory`, images in `imageDirectory`. */
export function placeOf(server: Server, directory: string, imageDirectory: string): Place {
  return {
    socket: join(directory, `${server.id}.sock`),
    file: join(imageDirectory, `${server.id}.img`),
    configuration: join(directory, `${server.id}.conf`),
    pidFile: join(directory, `${server.id}.pid`),
  };
}

export function addressOf(server: Server, place: Place): Address {
  return { socket: place.socket, exportName: EXPORT_NAMES[server.id] ?? "" };
}

/** A running server; disposing of it ends it and removes its image. */
export interface RunningServer extends AsyncDisposable {
  readonly server: Server;
  readonly address: Address;
  readonly pid: number;
}

/** Returns when its socket exists; the generator waits for it to listen. @throws Failure */
export async function startServer(server: Server, place: Place): Promise<RunningServer> {
  server.prepare?.(place);
  const child = Bun.spawn([...server.command(place)], { stdio: ["ignore", "ignore", "inherit"] });
  const deadline = performance.now() + START_LIMIT_MS;
  while (!existsSync(place.socket)) {
    const ended = child.exitCode !== null && !(server.detaches === true && child.exitCode === 0);
    if (ended || performance.now() > deadline) {
      child.kill("SIGKILL");
      throw new Failure(`${server.id} does not serve: try ${server.command(place).join(" ")}`);
    }
    await Bun.sleep(10);
  }
  const pid = server.detaches === true ? Number(readFileSync(place.pidFile, "utf8")) : child.pid;
  return {
    server,
    address: addressOf(server, place),
    pid,
    [Symbol.asyncDispose]: async () => {
      await endProcess(pid);
      for (const path of [place.socket, place.file]) rmSync(path, { force: true });
    },
  };
}

/** The command for {@link measureReady}; the server is gone afterwards. */
export function readyCommand(server: Server, place: Place): readonly string[] {
  server.prepare?.(place);
  return server.command(place);
}

/** Ends a server that went to the background. */
export async function endDetached(server: Server, place: Place): Promise<void> {
  if (server.detaches === true) await endProcess(Number(readFileSync(place.pidFile, "utf8")));
  for (const path of [place.socket, place.file]) rmSync(path, { force: true });
}

async function endProcess(pid: number): Promise<void> {
  const deadline = performance.now() + STOP_LIMIT_MS;
  if (isRunning(pid)) process.kill(pid, "SIGTERM");
  while (isRunning(pid)) {
    if (performance.now() > deadline) process.kill(pid, "SIGKILL");
    await Bun.sleep(5);
  }
}
