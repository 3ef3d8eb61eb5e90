/**
 * The guest's work, as files that its first process reads (guest-root.sh, guest-init.sh).
 */
import { chmod, cp, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { FOREIGN_HOST } from "./initramfs.ts";
import type { Kernel } from "./kernel.ts";

/** A command and its environment. */
export interface Job {
  readonly command: readonly string[];
  /** The working directory. */
  readonly directory: string;
  /** The checkout: here, as in `directory`, the guest writes to the host's files. */
  readonly checkout: string;
  /** The directory that becomes the guest's root; the guest's changes are its own. */
  readonly root: string;
  /** Variables to set besides the guest's own. */
  readonly environment: readonly (readonly [name: string, value: string])[];
}

/** The name, in the job's directory, of the program that the kernel starts. */
export const FIRST_PROCESS = "guest-root.sh";

/** Makes `directory` and writes the guest's files to it. The guest will end each output stream with `trailer`. */
export async function writeJob(
  directory: string,
  job: Job,
  kernel: Kernel,
  trailer: Uint8Array,
): Promise<void> {
  await mkdir(directory);
  for (const name of [FIRST_PROCESS, "guest-init.sh"]) {
    await cp(join(import.meta.dir, name), join(directory, name));
  }
  await chmod(join(directory, FIRST_PROCESS), 0o755);
  await writeFile(join(directory, "job.sh"), jobScript(job, kernel));
  await writeFile(join(directory, "trailer"), trailer);
}

function jobScript(job: Job, kernel: Kernel): string {
  const exports = job.environment.map(([name, value]) => `export ${name}=${quote(value)}`);
  const shares = sharedDirectories(job).map((directory) => `share ${quote(directory)}`);
  return [
    `version=${quote(kernel.version)}`,
    `modules=${quote(kernel.modules)}`,
    `host=${kernel.architecture === "x64" ? "" : FOREIGN_HOST}`,
    `root=${quote(job.root)}`,
    `checkout=${quote(job.checkout)}`,
    shellFunction("share_directories", shares),
    // The system's setsid: busybox's would run busybox's own commands instead of the system's.
    shellFunction("payload", [
      ...exports,
      `cd ${quote(job.directory)}`,
      `exec /usr/bin/setsid ${job.command.map(quote).join(" ")}`,
    ]),
  ].join("\n");
}

/** Shares the working directory as well, unless that would share the surroundings of the checkout. */
function sharedDirectories(job: Job): readonly string[] {
  const nested = contains(job.checkout, job.directory) || contains(job.directory, job.checkout);
  return nested ? [job.checkout] : [job.checkout, job.directory];
}

function contains(outer: string, inner: string): boolean {
  return outer === "/" || inner === outer || inner.startsWith(`${outer}/`);
}

function shellFunction(name: string, lines: readonly string[]): string {
  return `${name}() {\n${lines.map((line) => `  ${line}\n`).join("")}}\n`;
}

/** A word that the shell takes literally. */
function quote(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}
