/**
 * `--daemon`: the command starts itself again, waits until the new process has its device ready, and exits. It does not
 * fork, because the threads of this process would not come along.
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

/** The variable that tells the child about its parent. */
const MARK = "TSBUSE_DAEMON";
/** The child's end of a socket. Its stdout would not do, because a user's module may print to it. */
const READY_FD = 3;

/** systemd does not end a process of such a name: systemd.io/ROOT_STORAGE_DAEMONS. */
const INITRD_NAME = "@tsbuse";

const NULL = "/dev/null";

/** Found out at once: later on, its parent is another one. */
const isChild = wasStartedAsDaemon();

export function isDaemonChild(): boolean {
  return isChild;
}

/** The mark may have been inherited, by a shell or by what a module starts: then it means nothing. */
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
 * Starts the child and prints what it says once it is ready, the device's path. Returns the exit status.
 * @param initrd whether systemd's shutdown should spare it.
 */
export async function startDaemon(initrd: boolean): Promise<number> {
  provideNull();
  // A compiled binary is its own interpreter, and is given no script.
  const script = process.argv[1]?.startsWith("/$bunfs/") === true ? [] : process.argv.slice(1, 2);
  const child = Bun.spawn([process.execPath, ...script, ...process.argv.slice(2)], {
    ...(initrd && { argv0: INITRD_NAME }),
    env: { ...process.env, [MARK]: String(process.pid) },
    // Nothing that is printed in there is a result, and no copy of a descriptor of the caller's may stay open.
    stdio: ["ignore", "ignore", "inherit", "pipe"],
  });
  child.unref();
  const line = await firstLine(child.stdio[READY_FD]);
  if (line === undefined) return (await child.exited) || 1;
  writeLine(1, line);
  return 0;
}

/**
 * Called by the child when it is ready: a session of its own, no terminal, no directory held. The last thing is what
 * the parent waits for, so that all of this is done when the parent exits.
 */
export function leaveTerminal(line: string): void {
  // A process that leads its group already has a session; that is what setsid would refuse.
  setsid();
  process.chdir("/");
  const nothing = unwrap(open(NULL, O_RDWR), `open ${NULL}`);
  for (const fd of [0, 1, 2]) unwrap(dup2(nothing, fd), "dup2");
  close(nothing);
  // A parent that is gone does not stop a daemon, and the socket's buffer has room for a line.
  sendBytes(READY_FD, new TextEncoder().encode(`${line}\n`));
  close(READY_FD);
}

/**
 * A rescue system may have no /dev/null yet. A file of that name, which anything that writes to it makes, would be
 * held open for as long as the daemon lives.
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
