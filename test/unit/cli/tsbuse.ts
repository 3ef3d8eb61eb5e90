/** Runs the command line as a separate process. */
import { expect } from "bun:test";
import { join } from "node:path";

export interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

const MAIN = join(import.meta.dir, "../../../src/main.ts");

/** A node with this number cannot exist: whatever goes wrong, nothing gets attached. */
export const NO_NODE = "/dev/nbd9999";

/** Runs `tsbuse` with these arguments. */
export function tsbuse(...words: readonly string[]): Ended {
  return execute([process.execPath, MAIN, ...words]);
}

/** The command line of `tsbuse`, for another program to start. */
export function commandOf(...words: readonly string[]): string[] {
  return [process.execPath, MAIN, ...words];
}

export function execute(command: readonly string[], cwd?: string): Ended {
  const options = cwd === undefined ? {} : { cwd };
  const child = Bun.spawnSync([...command], { ...options, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  return { status: child.exitCode, stdout: child.stdout.toString(), stderr: child.stderr.toString() };
}

/** Expects no output on stdout, and one line on stderr: the cause, then the remedy. */
export function expectLine(ended: Ended, status: 1 | 2, cause: string, remedy: string): void {
  expect(ended).toEqual({ status, stdout: "", stderr: expect.stringMatching(/^tsbuse: [^\n]+\n$/) });
  expect(ended.stderr).toContain(cause);
  expect(ended.stderr.slice(ended.stderr.indexOf(cause) + cause.length)).toContain(remedy);
}
