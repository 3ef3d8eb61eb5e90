/**
 * `--daemon`: the command starts itself once more, waits until that process has its device ready, and exits. The
 * child cannot be forked off the running process: its threads would not come along.
 */
import { statSync } from "node:fs";
import { unwrap } from "../../libc/errno.ts";
import { close, dup2, open } from "../../libc/file.ts";
import { setsid } from "../../libc/process.ts";
import { ensureNode } from "../../nodes/device-node.ts";
import { O_RDWR } from "../../uapi/fcntl.ts";
import { writeLine } from "../log.ts";

/** Tells the child that it is one. */
const MARK = "TSBUSE_DAEMON";

/** systemd does not end a process of such a name: systemd.io/ROOT_STORAGE_DAEMONS. */
const INITRD_NAME = "@tsbuse";

const NULL = "/dev/null";

export function isDaemonChild(): boolean {
  return process.env[MARK] === "1";
}

/**
 * Starts the child and passes its first line, the device's path, on. Returns the exit status.
 * @param initrd whether it is to be spared at shutdown.
 */
export async function startDaemon(initrd: boolean): Promise<number> {
  provideNull();
  // A compiled binary is its own interpreter, and is given no script.
  const script = process.argv[1]?.startsWith("/$bunfs/") === true ? [] : process.argv.slice(1, 2);
  const child = Bun.spawn([process.execPath, ...script, ...process.argv.slice(2)], {
    ...(initrd && { argv0: INITRD_NAME }),
    env: { ...process.env, [MARK]: "1" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  child.unref();
  const line = await firstLine(child.stdout);
  if (line === undefined) return (await child.exited) || 1;
  writeLine(1, line);
  return 0;
}

/**
 * Called by the child when it is ready: a session of its own, no terminal, no directory held. The last thing is the
 * line that the parent waits for, so that whoever waits for the parent finds all of this done.
 */
export function leaveTerminal(line: string): void {
  // A process that leads its group already has a session; that is what setsid would refuse.
  setsid();
  process.chdir("/");
  const nothing = unwrap(open(NULL, O_RDWR), `open ${NULL}`);
  unwrap(dup2(nothing, 0), "dup2");
  unwrap(dup2(nothing, 2), "dup2");
  writeLine(1, line);
  unwrap(dup2(nothing, 1), "dup2");
  close(nothing);
}

/**
 * A rescue system may have no /dev/null yet. A file of that name, which anything that writes to it makes, would be
 * held open for as long as the daemon lives.
 */
function provideNull(): void {
  if (statSync(NULL, { throwIfNoEntry: false })?.isCharacterDevice() === true) return;
  ensureNode(NULL, "character", "/sys/class/mem/null/dev");
}

async function firstLine(stream: ReadableStream<Uint8Array>): Promise<string | undefined> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const chunk of stream) {
    text += decoder.decode(chunk, { stream: true });
    const end = text.indexOf("\n");
    if (end >= 0) return text.slice(0, end);
  }
  return undefined;
}
