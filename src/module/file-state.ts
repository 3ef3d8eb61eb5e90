/** Whether a file has been saved: it then has another time, size or inode. */
import { statSync } from "node:fs";

/** Files by path, each with its state just before it was read, so that no later save is missed. */
export type FileStates = Map<string, string>;

export function fileState(file: string): string {
  const stats = statSync(file, { bigint: true, throwIfNoEntry: false });
  return stats === undefined ? "absent" : `${stats.ino} ${stats.mtimeNs} ${stats.size}`;
}
