/**
 * `--daemon`: the command starts itself again, waits until the new process has its device ready, and exits. It does not
 * fork, because the child would not have the threads of this process.
 */
import { strict as assert } from "node:assert";
import { fstatSync, statSync } from "node:fs";
import { unwrap } from "../../libc/errno.ts";
import { close, dup2, open } from "../../libc/file.ts";
import { setsid } from "../../libc/process.ts";
import { sendBytes } from "../../libc/socket.ts";
import { ensureNode } from "../../nodes/device-node.ts";
import { O_RDWR } from "../../uapi/fcntl.ts";
import { writeLine } from "../log.ts";

/** The variable that marks the child. */
const MARK = "TSBUSE_DAEMON";
/** The child's end of a socket. stdout would not do, because a user's module may print to it. */
const READY_FD = 3;

/** systemd does not kill a process with such a name at shutdown: systemd.io/ROOT_STORAGE_DAEMONS. */
const INITRD_NAME = "@tsbuse";

const NULL = "/dev/null";

/** Determined at once: the parent changes later. */
const isChild = wasStartedAsDaemon();

export function isDaemonChild(): boolean {
  return isChild;
}

/** A mark that a shell, or a program started by a module, has inherited means nothing. */
function wasStartedAsDaemon(): boolean {
  const parent = process.env[MARK];
  delete process.env[MARK];
  if (parent !== String(process.ppid)) return false;
  try {
    return fstatSync(READY_FD).isSocket();
  } catch {
    return false;
  }
}

/**
 * Starts the child, and prints what it reports once it is ready: the device's path. Returns the exit status.
 * @param initrd whether systemd should spare it at shutdown.
 */
export async function startDaemon(initrd: boolean): Promise<number> {
  provideNull();
  // A compiled binary is its own interpreter, and takes no script.
  const script = process.argv[1]?.startsWith("/$bunfs/") === true ? [] : process.argv.slice(1, 2);
  const child = Bun.spawn([process.execPath, ...script, ...process.argv.slice(2)], {
    ...(initrd && { argv0: INITRD_NAME }),
    env: { ...process.env, [MARK]: String(process.pid) },
    // The child prints no results, and must not keep copies of the caller's descriptors.
    stdio: ["ignore", "ignore", "inherit", "pipe"],
  });
  child.unref();
  const line = await firstLine(child.stdio[READY_FD]);
  if (line === undefined) return (await child.exited) || 1;
  writeLine(1, line);
  return 0;
}

/**
 * Called by the child when it is ready. Starts a new session, without a terminal or a working directory. Reports to the
 * parent last, so that all of this is done when the parent exits.
 */
export function leaveTerminal(line: string): void {
  // setsid(2) fails only for the leader of a process group, which already has a session of its own.
  setsid();
  process.chdir("/");
  const nothing = unwrap(open(NULL, O_RDWR), `open ${NULL}`);
  for (const fd of [0, 1, 2]) unwrap(dup2(nothing, fd), "dup2");
  close(nothing);
  // A missing parent does not stop a daemon. The socket's buffer has room for a line.
  sendBytes(READY_FD, new TextEncoder().encode(`${line}\n`));
  close(READY_FD);
}

/**
 * A rescue system may have no /dev/null yet. Writing to the name would create a regular file, which the daemon would
 * keep open as long as it runs.
 */
function provideNull(): void {
  if (statSync(NULL, { throwIfNoEntry: false })?.isCharacterDevice() === true) return;
  ensureNode(NULL, "character", "/sys/class/mem/null/dev");
}

async function firstLine(fd: number | null | undefined): Promise<string | undefined> {
  assert(typeof fd === "number", "the child was started with such a descriptor");
  let text = "";
  const decoder = new TextDecoder();
  for await (const chunk of Bun.file(fd).stream()) {
    text += decoder.decode(chunk, { stream: true });
    const end = text.indexOf("\n");
    if (end >= 0) return text.slice(0, end);
  }
  return undefined;
}
