/** Files in /run/tsbuse, which only root may read: what one process of tsbuse leaves for another. */
import { mkdirSync } from "node:fs";
import { open } from "../libc/file.ts";
import { inCurrentRoot } from "../libc/root.ts";
import { O_CREAT, O_RDWR } from "../uapi/fcntl.ts";

const DIRECTORY = "/run/tsbuse";

/** `/run/tsbuse/NAME` */
export function runPath(name: string): string {
  return `${DIRECTORY}/${name}`;
}

/** @throws Error if it cannot be made. */
export function makeRunDirectory(): void {
  mkdirSync(inCurrentRoot(DIRECTORY), { recursive: true, mode: 0o700 });
}

/** Opens a file for reading and writing; makes it if necessary. Returns a file descriptor or -errno. */
export function openRunFile(name: string): number {
  try {
    makeRunDirectory();
  } catch {
    // The open says why.
  }
  return open(inCurrentRoot(runPath(name)), O_RDWR | O_CREAT, 0o600);
}
