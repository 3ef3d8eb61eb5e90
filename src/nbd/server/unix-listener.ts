/** Claiming the path of a Unix socket: a stale socket is replaced, a live one never. */
import { lstatSync, unlinkSync } from "node:fs";
import { dirname } from "node:path";
import { messageOf, UserError } from "../../errors.ts";
import { close, flock, open } from "../../libc/file.ts";
import { unwrap } from "../../libc/errno.ts";
import { LOCK_EX, O_RDONLY } from "../../uapi/fcntl.ts";

/** Nobody but the owner may connect. */
const UMASK = 0o177;

/**
 * Runs `listen`, which is to make the socket at `path`, once the path is free. Two processes that want the same path
 * take turns, by a lock on the directory.
 * @throws UserError when the path is somebody else's.
 */
export async function claimSocketPath<T>(path: string, listen: () => T): Promise<T> {
  const directory = open(dirname(path), O_RDONLY);
  if (directory < 0) {
    throw new UserError(`${path} cannot be made: make its directory first, or choose another`);
  }
  try {
    unwrap(flock(directory, LOCK_EX), `flock ${dirname(path)}`);
    await removeStale(path);
    const before = process.umask(UMASK);
    try {
      return listen();
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

async function removeStale(path: string): Promise<void> {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return;
  if (!stats.isSocket()) throw new UserError(`${path} exists and is not a socket: choose another path`);
  if (await isLive(path)) {
    throw new UserError(`${path} is served by another process: end it, or choose another path`);
  }
  unlinkSync(path);
}

/** Whether somebody listens: connecting is the only way to know. */
async function isLive(path: string): Promise<boolean> {
  try {
    const socket = await Bun.connect({ unix: path, socket: { data: () => undefined } });
    socket.terminate();
    return true;
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ECONNREFUSED") return false;
    // Its queue is full, or it is not ours to connect to: in any case it is not a leftover of ours.
    if (code === "ENOENT") return false;
    return true;
  }
}
