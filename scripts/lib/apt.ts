/**
 * What the scripts need from the system, and how it gets there on Debian.
 */
import { existsSync } from "node:fs";
import { Failure } from "./failure.ts";

/** Something that must be installed, told by a command on the PATH or by a file, and the package that brings it. */
export type Requirement =
  | { readonly command: string; readonly package: string }
  | { readonly file: string; readonly package: string };

/**
 * Makes sure that everything in `requirements` is there. What is missing is installed with apt-get when we are root
 * on a system that has it; nothing is done, and nothing touches the network, when nothing is missing.
 *
 * @throws Failure with exit status 2 and one line for each missing thing, with the command that would install it.
 */
export async function ensureInstalled(requirements: readonly Requirement[]): Promise<void> {
  const missing = requirements.filter((requirement) => !isInstalled(requirement));
  if (missing.length === 0) return;
  if (isRoot() && findCommand("apt-get") !== null) {
    const packages = [...new Set(missing.map((requirement) => requirement.package))];
    console.error(`installing ${packages.join(" ")}`);
    await withPackageLists(() => aptGet(["install", "--yes", "--no-install-recommends", ...packages]));
  }
  const stillMissing = explainMissing(requirements);
  if (stillMissing.length > 0) throw new Failure(stillMissing.join("\n"), 2);
}

/** One line for each thing in `requirements` that is missing: what it is, and the command that installs it. */
export function explainMissing(requirements: readonly Requirement[]): readonly string[] {
  return requirements
    .filter((requirement) => !isInstalled(requirement))
    .map((requirement) => `${nameOf(requirement)} is missing: ${remedy(requirement.package)}`);
}

/**
 * Does something with packages, and when it fails, updates apt's lists of them and does it again. Not before: usually
 * the lists are there and fresh enough, and the network may not be.
 */
export async function withPackageLists<T>(action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    // Some source of packages may not answer, and not be needed either: the second attempt tells.
    await runAptGet(["update"], "/");
    return action();
  }
}

/**
 * Runs apt-get in `directory`.
 *
 * @throws Failure with apt-get's own reason.
 */
export async function aptGet(args: readonly string[], directory = "/"): Promise<void> {
  const { ok, reason } = await runAptGet(args, directory);
  if (ok) return;
  throw new Failure(
    `"apt-get ${args.join(" ")}" failed: ${reason}; check the network and the package sources`,
    2,
  );
}

/** The path of a command, looked for in the administrator's directories as well: a user's PATH often lacks them. */
export function findCommand(command: string): string | null {
  return Bun.which(command, {
    PATH: `${process.env["PATH"] ?? ""}:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin`,
  });
}

/** True for the user who may install packages. */
export function isRoot(): boolean {
  return process.geteuid?.() === 0;
}

function isInstalled(requirement: Requirement): boolean {
  return "command" in requirement ? findCommand(requirement.command) !== null : existsSync(requirement.file);
}

function nameOf(requirement: Requirement): string {
  return "command" in requirement ? requirement.command : requirement.file;
}

function remedy(name: string): string {
  if (findCommand("apt-get") === null) return `install what Debian has in its package ${name}`;
  return `run "${isRoot() ? "" : "sudo "}apt-get install ${name}"`;
}

/** Where apt keeps its state; the lock on it makes two scripts that install at once take turns. */
const APT_STATE = "/var/lib/apt";

const APT_OPTIONS = [
  "--quiet",
  "--option=DPkg::Lock::Timeout=300",
  "--option=Acquire::Retries=2",
  "--option=Acquire::http::Timeout=30",
  // As "_apt", its default, it cannot write to our temporary directories and says so.
  "--option=APT::Sandbox::User=root",
];

async function runAptGet(
  args: readonly string[],
  directory: string,
): Promise<{ readonly ok: boolean; readonly reason: string }> {
  const child = Bun.spawn(["flock", APT_STATE, "apt-get", ...APT_OPTIONS, ...args], {
    cwd: directory,
    env: { ...process.env, DEBIAN_FRONTEND: "noninteractive", LC_ALL: "C.UTF-8" },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const [complaints, status] = await Promise.all([child.stderr.text(), child.exited]);
  const reason = complaints.split("\n").find((line) => line.startsWith("E: ")) ?? `exit status ${status}`;
  return { ok: status === 0, reason: reason.replace(/^E: /, "") };
}
