/**
 * What this machine needs to run virtual machines that use its root directory.
 */
import { existsSync } from "node:fs";
import { ensureInstalled, explainMissing, isRoot, type Requirement } from "./apt.ts";
import { ARCHITECTURES, type Architecture } from "./architecture.ts";
import { debianRelease } from "./debian.ts";
import { Failure } from "./failure.ts";

/** The program that serves the host's files to the guest, in Debian 12 and in Debian 13. */
const VIRTIOFSD_OF_QEMU = "/usr/lib/qemu/virtiofsd";
const VIRTIOFSD = "/usr/libexec/virtiofsd";

const REQUIREMENTS: readonly Requirement[] = [
  // These two run in an x86-64 guest as well, which sees the host's files.
  { file: "/bin/busybox", package: "busybox-static" },
  { command: "modprobe", package: "kmod" },
  { command: "xz", package: "xz-utils" },
];

/**
 * Makes sure that this machine can run the virtual machine, and installs what is missing where possible.
 *
 * @returns the path of virtiofsd.
 * @throws Failure with exit status 2, and one line for each thing that is missing.
 */
export async function ensureVmHost(architecture: Architecture = "x64"): Promise<string> {
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw new Failure("the virtual machine requires a Linux host with an x86-64 processor: use one", 2);
  }
  const requirements = [ARCHITECTURES[architecture].qemu, ...REQUIREMENTS, ...virtiofsdRequirement()];
  if (!isRoot()) {
    const rootMissing =
      'the guest uses the host\'s files as root, which takes root here too: run it with "sudo"';
    throw new Failure([rootMissing, ...explainMissing(requirements)].join("\n"), 2);
  }
  await ensureInstalled(requirements);
  return findVirtiofsd() ?? VIRTIOFSD;
}

function findVirtiofsd(): string | undefined {
  return [VIRTIOFSD, VIRTIOFSD_OF_QEMU].find((path) => existsSync(path));
}

function virtiofsdRequirement(): readonly Requirement[] {
  if (findVirtiofsd() !== undefined) return [];
  return debianRelease() === 12
    ? [{ file: VIRTIOFSD_OF_QEMU, package: "qemu-system-common" }]
    : [{ file: VIRTIOFSD, package: "virtiofsd" }];
}
