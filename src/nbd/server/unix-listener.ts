/** Claims the path of a Unix socket, and gives it back. A stale socket is replaced, one that is in use never. */
import { lstatSync, unlinkSync } from "node:fs";
import { dirname } from "node:path";
import { messageOf, UserError } from "../../errors.ts";
import { close, flock, open } from "../../libc/file.ts";
import { unwrap } from "../../libc/errno.ts";
import { tryUnix } from "../../libc/socket.ts";
import { errno } from "../../uapi/errno.ts";
import { LOCK_EX, LOCK_NB, O_RDONLY } from "../../uapi/fcntl.ts";

/** Only the owner may connect. */
const UMASK = 0o177;

/** A server holds the lock only for as long as connecting takes, but anybody who may read the directory can hold it. */
const LOCK_LIMIT_MS = 5000;
const LOCK_AGAIN_MS = 20;

/** A socket at a path, identified in case another one takes its place. */
export interface PlacedSocket {
  readonly fd: number;
  readonly dev: bigint;
  readonly ino: bigint;
}

/**
 * Runs `listen`, which must make the socket at `path`, once the path is free. A lock on the directory keeps apart two
 * processes that want the same path.
 * @param listen returns the socket's file descriptor.
 * @param limitMs for waiting for the lock.
 * @throws UserError if the path is in use by somebody else, or the socket cannot be made.
 */
export async function claimSocketPath(
  path: string,
  listen: () => number,
  limitMs = LOCK_LIMIT_MS,
): Promise<PlacedSocket> {
  const directory = open(dirname(path), O_RDONLY);
  if (directory < 0) {
    throw new UserError(`${path} cannot be made: make its directory first, or choose another`);
  }
  try {
    await lock(directory, path, limitMs);
    removeStale(path);
    const before = process.umask(UMASK);
    try {
      const fd = listen();
      const { dev, ino } = lstatSync(path, { bigint: true });
      return { fd, dev, ino };
    } catch (error) {
      throw new UserError(
        `${path} cannot be made: ${messageOf(error)}, choose a directory you may write to`,
        {
          cause: error,
        },
      );
    } finally {
      process.umask(before);
    }
  } finally {
    close(directory);
  }
}

/**
 * Removes the socket, unless another one is in its place by now, because somebody removed this one before. No other
 * socket can have its inode number while it is open.
 */
export function giveSocketPathBack(path: string, { dev, ino }: PlacedSocket): void {
  try {
    const there = lstatSync(path, { bigint: true });
    if (there.dev === dev && there.ino === ino) unlinkSync(path);
  } catch {
    // Somebody else removed it, or its directory.
  }
}

async function lock(directory: number, path: string, limitMs: number): Promise<void> {
  const until = performance.now() + limitMs;
  for (;;) {
    const result = flock(directory, LOCK_EX | LOCK_NB);
    if (result !== -errno.EAGAIN) return void unwrap(result, `flock ${dirname(path)}`);
    if (performance.now() > until) {
      const held = `another process holds a lock on the directory of ${path}`;
      throw new UserError(`${held}: "lslocks" shows it, end it, or choose another directory`);
    }
    await Bun.sleep(LOCK_AGAIN_MS);
  }
}

function removeStale(path: string): void {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return;
  if (!stats.isSocket()) throw new UserError(`${path} exists and is not a socket: choose another path`);
  if (isLive(path)) {
    throw new UserError(`${path} is served by another process: end it, or choose another path`);
  }
  unlinkSync(path);
}

/**
 * Whether the socket is in use: connecting is the only way to know. A socket is not stale if its server is too busy to
 * accept a client, if it has another type, or if we may not connect to it.
 */
function isLive(path: string): boolean {
  const fd = tryUnix(path);
  if (fd >= 0) close(fd);
  return fd !== -errno.ECONNREFUSED && fd !== -errno.ENOENT;
}
