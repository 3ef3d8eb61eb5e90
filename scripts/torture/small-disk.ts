/** A small file system for the files of a step that fills up. */
import { mkdirSync, statfsSync } from "node:fs";
import { join } from "node:path";
import type { Step } from "./plan.ts";
import { runs } from "./process.ts";
import { STORE, WORK } from "./stage.ts";

/** Takes nearly all space; once it is removed, there is enough. */
export const BALLAST = join(STORE, "ballast");

const SIZE = "64M";
const ROOM_BYTES = 2 * 2 ** 20;

export async function mountSmallDisk({ fileSystem }: Step, log: string): Promise<void> {
  mkdirSync(STORE, { recursive: true });
  if (fileSystem === "tmpfs") await runs(log, "mount", "-t", "tmpfs", "-o", `size=${SIZE}`, "none", STORE);
  else {
    const image = join(WORK, "small.ext4");
    await runs(log, "truncate", "-s", SIZE, image);
    await runs(log, "mkfs.ext4", "-q", "-F", "-m", "0", image);
    await runs(log, "mount", "-o", "loop", image, STORE);
  }
  const { bfree, bsize } = statfsSync(STORE);
  await runs(log, "fallocate", "-l", String(bfree * bsize - ROOM_BYTES), BALLAST);
}

export function unmountSmallDisk(log: string): Promise<void> {
  return runs(log, "umount", STORE);
}
