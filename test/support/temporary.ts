/** Directories for a test's files. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { close, open } from "../../src/libc/file.ts";
import { O_DIRECT, O_RDWR } from "../../src/uapi/fcntl.ts";

/** A new directory, removed with all its contents. */
export class TemporaryDirectory {
  readonly path: string;

  /** @param parent determines the file system. */
  constructor(parent = tmpdir()) {
    this.path = mkdtempSync(join(parent, "tsbuse-test-"));
  }

  join(name: string): string {
    return join(this.path, name);
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** Whether the file system of temporary directories supports direct I/O. */
export function hasDirectIo(): boolean {
  using directory = new TemporaryDirectory();
  const path = directory.join("probe");
  writeFileSync(path, "");
  const fd = open(path, O_RDWR | O_DIRECT);
  if (fd >= 0) close(fd);
  return fd >= 0;
}
