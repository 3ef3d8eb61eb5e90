/** The contestants of the kernel suite: how each gets its device node. Run in the virtual machine. */
import { existsSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { basename } from "node:path";
import { Failure } from "../lib/failure.ts";
import { firstLine } from "./load.ts";
import { isRunning } from "./processes.ts";
import type { Contestant } from "./results.ts";
import { TSBUSE } from "./servers.ts";
import { startUblkPeer } from "./ublk-peer.ts";

/** Bytes of every device. */
export const SIZE = 128 * 2 ** 20;
const START_LIMIT_MS = 30_000;
/** A tmpfs in the guest. */
const DIRECTORY = "/run";

/** A device to measure; disposing of it detaches it and ends its server. */
export interface Attached extends AsyncDisposable {
  readonly path: string;
  /** The server's process; absent where the kernel serves. */
  readonly pid?: number;
}

export interface KernelContestant extends Contestant {
  /** @param node a free device of the nbd driver, for contestants that do not find one themselves. */
  readonly attach: (node: string) => Promise<Attached>;
  /** False where the binary or the kernel lacks it. */
  readonly isThere?: () => Promise<boolean>;
}

/** tsbuse on a target; the word `FILE` becomes the path of an image of its own, and `NODE` the node. */
export function tsbuse(
  id: string,
  words: readonly string[],
  kind: Contestant["kind"] = "ours",
): KernelContestant {
  return {
    id,
    kind,
    attach: (node) => {
      const given: Readonly<Record<string, string>> = { FILE: makeFile(id), NODE: node };
      return attachTsbuse(
        id,
        words.map((word) => given[word] ?? word),
      );
    },
  };
}

async function attachTsbuse(id: string, words: readonly string[]): Promise<Attached> {
  const server = Bun.spawn([TSBUSE, ...words], { stdio: ["ignore", "pipe", "inherit"] });
  const path = await firstLine(server.stdout);
  if (path === "") throw new Failure(`${id} ended without a device`);
  return { path, pid: server.pid, [Symbol.asyncDispose]: () => end(server) };
}

/** On the ublk driver, if the binary and the kernel support it. */
export function tsbuseUblk(words: readonly string[]): KernelContestant {
  return { ...tsbuse("tsbuse-ublk", [...words, "ublk"]), isThere: hasUblk };
}

/** The same loop in C: the limit that the ublk driver sets. */
export function ublkInC(): KernelContestant {
  return {
    id: "ublk in C",
    kind: "ceiling",
    does: ["tsbuse-ublk"],
    attach: () => startUblkPeer({ size: SIZE, copy: "need-get-data" }),
    isThere: async () => existsSync("/dev/ublk-control"),
  };
}

async function hasUblk(): Promise<boolean> {
  const help = Bun.spawn([TSBUSE, "ramdisk", "--help"], { stdio: ["ignore", "pipe", "ignore"] });
  return (await help.stdout.text()).includes("ublk") && existsSync("/dev/ublk-control");
}

export function nbdkit(plugin: "memory" | "file", id = "nbdkit"): KernelContestant {
  return {
    id,
    kind: "peer",
    attach: async (node) => {
      const { server, socket } = await startNbdkit(id, plugin);
      await run(["nbd-client", "-unix", socket, node]);
      await until("nbd-client is attached", () => isAttached(node));
      return {
        path: node,
        pid: server.pid,
        [Symbol.asyncDispose]: async () => {
          await run(["nbd-client", "-d", node]);
          await end(server);
        },
      };
    },
  };
}

async function startNbdkit(id: string, plugin: "memory" | "file") {
  const socket = `${DIRECTORY}/bench-nbdkit-${id}.sock`;
  // nbdkit leaves its socket behind, and we take the socket as the sign that it listens.
  rmSync(socket, { force: true });
  const words = plugin === "memory" ? ["memory", String(SIZE)] : ["file", makeFile(id)];
  const server = Bun.spawn(["nbdkit", "--foreground", "--unix", socket, ...words], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  await until("nbdkit listens", () => existsSync(socket));
  return { server, socket };
}

/** Clients that attach the export of a nbdkit, one for each. */
export function remotes(): KernelContestant[] {
  return [
    remote("tsbuse", "ours", (uri, node) => attachTsbuse("tsbuse", ["nbd", uri, node])),
    {
      ...remote("tsbuse-ublk", "ours", (uri) => attachTsbuse("tsbuse-ublk", ["nbd", uri, "ublk"])),
      isThere: hasUblk,
    },
    remote("qemu-nbd", "peer", (uri, node) => attachQemuNbd("qemu-nbd-remote", uri, node)),
    nbdkit("memory", "nbd-client"),
  ];
}

function remote(
  id: string,
  kind: Contestant["kind"],
  attach: (uri: string, node: string) => Promise<Attached>,
): KernelContestant {
  return {
    id,
    kind,
    attach: async (node) => {
      const { server, socket } = await startNbdkit(id, "memory");
      const attached = await attach(`nbd+unix:///?socket=${socket}`, node);
      return {
        ...attached,
        [Symbol.asyncDispose]: async () => {
          await attached[Symbol.asyncDispose]();
          await end(server);
        },
      };
    },
  };
}

/** qemu-nbd goes to the background once it is attached, and ends when it is disconnected. */
export function qemuNbd(): KernelContestant {
  return {
    id: "qemu-nbd",
    kind: "peer",
    attach: (node) => attachQemuNbd("qemu-nbd", makeFile("qemu-nbd"), node),
  };
}

/** @param image a file, or a URI. */
async function attachQemuNbd(id: string, image: string, node: string): Promise<Attached> {
  const pidFile = `${DIRECTORY}/bench-${id}.pid`;
  const files = ["--socket", `${DIRECTORY}/bench-${id}.sock`, "--pid-file", pidFile];
  const options = ["--format", "raw", "--discard", "unmap", "--connect", node];
  await run(["qemu-nbd", ...files, ...options, image]);
  await until("qemu-nbd is attached", () => isAttached(node));
  const pid = Number(readFileSync(pidFile, "utf8"));
  return {
    path: node,
    pid,
    [Symbol.asyncDispose]: async () => {
      await run(["qemu-nbd", "--disconnect", node]);
      await until("qemu-nbd has ended", () => !isRunning(pid));
    },
  };
}

/** The kernel's own RAM disk. */
export function brd(): KernelContestant {
  return {
    id: "brd",
    kind: "ceiling",
    attach: async () => {
      await run(["modprobe", "brd", "rd_nr=1", `rd_size=${SIZE / 1024}`]);
      await until("the kernel's RAM disk is there", () => existsSync("/dev/ram0"));
      return { path: "/dev/ram0", [Symbol.asyncDispose]: () => run(["modprobe", "-r", "brd"]) };
    },
  };
}

/** The kernel's own loop device. */
export function kernelLoop(): KernelContestant {
  return {
    id: "loop",
    kind: "ceiling",
    attach: async () => {
      const losetup = Bun.spawn(["losetup", "--find", "--show", makeFile("loop")], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      const path = (await losetup.stdout.text()).trim();
      return { path, [Symbol.asyncDispose]: () => run(["losetup", "--detach", path]) };
    },
  };
}

function makeFile(id: string): string {
  const path = `${DIRECTORY}/bench-${id}.img`;
  writeFileSync(path, "");
  truncateSync(path, SIZE);
  return path;
}

function isAttached(node: string): boolean {
  return existsSync(`/sys/block/${node.slice("/dev/".length)}/pid`);
}

async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = performance.now() + START_LIMIT_MS;
  while (!condition()) {
    if (performance.now() > deadline) throw new Failure(`not within ${START_LIMIT_MS} ms: ${what}`);
    await Bun.sleep(10);
  }
}

/** Its stderr goes to a file: a program in the background would keep a pipe open. */
async function run(command: readonly string[]): Promise<void> {
  const log = Bun.file(`${DIRECTORY}/bench-${basename(command[0] ?? "")}.log`);
  const status = await Bun.spawn([...command], { stdio: ["ignore", "ignore", log] }).exited;
  if (status !== 0) throw new Failure(`"${command.join(" ")}" failed: ${(await log.text()).trim()}`);
}

async function end(server: Bun.Subprocess): Promise<void> {
  server.kill("SIGTERM");
  await server.exited;
}
