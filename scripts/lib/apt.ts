/**
 * Finds and installs, on Debian, what the scripts need from the system.
 */
import { existsSync } from "node:fs";
import { Failure } from "./failure.ts";

/** Something that must be installed, recognized by a command on the PATH or a file, and the package that has it. */
export type Requirement =
  | { readonly command: string; readonly package: string }
  | { readonly file: string; readonly package: string };

/**
 * Makes sure that everything in `requirements` is installed. As root, and where apt-get exists, installs what is
 * missing. Does nothing, and needs no network, if nothing is missing.
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
 * Does something with packages. If it fails, updates apt's package lists and tries again. Not before: the lists are
 * usually fresh enough, and the network may be down.
 */
export async function withPackageLists<T>(action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    // Ignores failures: the second attempt shows whether it needed the source that did not answer.
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

/** The path of a command. Searches the administrator's directories as well: a user's PATH often lacks them. */
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
  if (findCommand("apt-get") === null) return `install the equivalent of Debian's package ${name}`;
  return `run "${isRoot() ? "" : "sudo "}apt-get install ${name}"`;
}

/** Where apt keeps its state. Two scripts that install at once take turns by a lock on it. */
const APT_STATE = "/var/lib/apt";

const APT_OPTIONS = [
  "--quiet",
  "--option=DPkg::Lock::Timeout=300",
  "--option=Acquire::Retries=2",
  "--option=Acquire::http::Timeout=30",
  // By default apt downloads as "_apt", which cannot write to our temporary directories, and warns.
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
