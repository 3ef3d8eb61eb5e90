/** `--pid-file`: written once the device can be used, and removed at the end only by the process that it names. */
import { accessSync, constants, readFileSync, renameSync, rmSync, statSync, unlinkSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { messageOf, UserError } from "../../errors.ts";
import { unwrap } from "../../libc/errno.ts";
import { close, open, pread, pwrite } from "../../libc/file.ts";
import { O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY } from "../../uapi/fcntl.ts";

/** More than a process ID and a line feed. */
const PID_BYTES = 32;

/**
 * Returns an absolute path, because a daemon has another working directory. Checked before anything is attached.
 * @throws UserError if it cannot be written, or belongs to a running process.
 */
export function parsePidFile(path: string): string {
  const absolute = resolve(path);
  try {
    accessSync(dirname(absolute), constants.W_OK);
  } catch (error) {
    throw new UserError(`the PID file ${path} cannot be written: its directory is missing or not writable`, {
      cause: error,
    });
  }
  if (statSync(absolute, { throwIfNoEntry: false })?.isFile() === false) {
    throw new UserError(`the PID file ${path} exists and is not a regular file: choose another name`);
  }
  refuseOwned(absolute);
  return absolute;
}

/** @throws UserError */
export function writePidFile(path: string): void {
  refuseOwned(path);
  const unfinished = `${path}.new`;
  let isMade = false;
  try {
    // Left by a process that was killed, or a link that another user made for root to follow.
    rmSync(unfinished, { force: true });
    const fd = unwrap(open(unfinished, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o644), "open");
    isMade = true;
    writeAndClose(fd, `${process.pid}\n`);
    renameSync(unfinished, path);
  } catch (error) {
    if (isMade) rmSync(unfinished, { force: true });
    throw new UserError(`the PID file ${path} cannot be written: ${messageOf(error)}, choose another name`, {
      cause: error,
    });
  }
}

/** Leaves the file alone if it names another process by now. @returns why it is still there, else undefined. */
export function removePidFile(path: string): string | undefined {
  try {
    if (readPid(path) === process.pid) unlinkSync(path);
    return undefined;
  } catch (error) {
    return `the PID file ${path} could not be removed: ${messageOf(error)}, remove it`;
  }
}

/** @throws ErrnoError */
function writeAndClose(fd: number, text: string): void {
  try {
    unwrap(pwrite(fd, new TextEncoder().encode(text), 0), "write");
  } finally {
    close(fd);
  }
}

/** Undefined if the file is missing, or contains no number. */
function readPid(path: string): number | undefined {
  const fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return undefined;
  const bytes = new Uint8Array(new ArrayBuffer(PID_BYTES));
  const count = pread(fd, bytes, 0);
  close(fd);
  const pid = Number.parseInt(new TextDecoder().decode(bytes.subarray(0, Math.max(count, 0))), 10);
  return pid > 0 ? pid : undefined;
}

/** The process ID may have been reused, so it must be a process that was given this file's name. */
function refuseOwned(path: string): void {
  const pid = readPid(path);
  if (pid === undefined || pid === process.pid || !commandLine(pid).includes(basename(path))) return;
  throw new UserError(
    `the PID file ${path} is that of process ${pid}, which is running: end it, or choose another name`,
  );
}

/** "" if there is no such process. */
function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch {
    return "";
  }
}
