/**
 * Lets one server at a time have a node: each node that was attached by netlink has a file, /run/tsbuse/nbd0, which its
 * server has open and locked. The driver shows who attached a node, but not who has taken it over since.
 */
import { rmSync } from "node:fs";
import { close, flock } from "../../libc/file.ts";
import { inCurrentRoot } from "../../libc/root.ts";
import { hasOpen, processesWith } from "../../nodes/openers.ts";
import { openRunFile, runPath } from "../../nodes/run-file.ts";
import { errno } from "../../uapi/errno.ts";
import { LOCK_EX, LOCK_NB } from "../../uapi/fcntl.ts";

/** Returns a file descriptor to keep while the node is served; -EAGAIN if another process has it, or -errno. */
export function takeSeat(name: string): number {
  const fd = openRunFile(name);
  if (fd < 0) return fd;
  const locked = flock(fd, LOCK_EX | LOCK_NB);
  if (locked >= 0) return fd;
  close(fd);
  return locked === -errno.EAGAIN ? -errno.EAGAIN : locked;
}

/** Gives the seat up. @param isLast whether the node goes with it. */
export function leaveSeat(name: string, fd: number, isLast: boolean): void {
  if (fd < 0) return;
  if (isLast) rmSync(inCurrentRoot(pathOf(name)), { force: true });
  close(fd);
}

/** The process that serves the node; undefined if there is none, or it is invisible from here. @param likely pid. */
export function seated(name: string, likely: number | undefined): number | undefined {
  const path = pathOf(name);
  if (likely !== undefined && hasOpen(likely, path) === true) return likely;
  return processesWith(path)[0];
}

export function pathOf(name: string): string {
  return runPath(name);
}
