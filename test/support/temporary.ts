/** Directories for a test's files. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A directory of its own, removed with all that is in it. */
export class TemporaryDirectory {
  readonly path: string;

  /** @param parent decides on the file system. */
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
