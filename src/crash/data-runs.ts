/** Where a sparse file has data. */
import { fstatSync } from "node:fs";
import { unwrap } from "../libc/errno.ts";
import * as file from "../libc/file.ts";
import { errno } from "../uapi/errno.ts";
import type { Run } from "./ranges.ts";

/** The runs of a file that are not holes, in bytes. @throws ErrnoError */
export function dataRuns(fd: number): Run[] {
  const { size } = fstatSync(fd);
  const runs: Run[] = [];
  for (let at = 0; at < size;) {
    const first = file.seekData(fd, at);
    if (first === -errno.ENXIO) break;
    at = unwrap(file.seekHole(fd, unwrap(first, "lseek")), "lseek");
    runs.push({ first, end: at });
  }
  return runs;
}
