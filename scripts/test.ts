/**
 * Runs every test and ends with the line `N passed, N failed` (`, N skipped` after it when some were).
 *
 *     scripts/test                  all of them, the kernel tests in the virtual machine
 *     scripts/test --no-skips       a skipped test counts as failed: for CI
 *     scripts/test checks unit      some of the suites: checks, unit, conformance, kernel, boot, torture
 */
import { ensureInstalled, type Requirement } from "./lib/apt.ts";
import { Failure } from "./lib/failure.ts";
import { type Counts, runCheck, runTests, runTestsInVm, sumCounts } from "./lib/suites.ts";
import { ensureVmHost } from "./lib/vm-host.ts";

const BUN = process.execPath;

/** What the tests run beside the project itself. */
const REQUIREMENTS: readonly Requirement[] = [
  { command: "cc", package: "gcc" },
  { file: "/usr/include/linux/nbd.h", package: "linux-libc-dev" },
  { command: "fio", package: "fio" },
  { command: "strace", package: "strace" },
  { command: "mkfs.ext4", package: "e2fsprogs" },
  { command: "mkfs.xfs", package: "xfsprogs" },
  { command: "mkfs.btrfs", package: "btrfs-progs" },
  { command: "sqlite3", package: "sqlite3" },
  { command: "sfdisk", package: "fdisk" },
  { command: "socat", package: "socat" },
  { command: "cmp", package: "diffutils" },
  { command: "setpriv", package: "util-linux" },
  { command: "pgrep", package: "procps" },
  { command: "gzip", package: "gzip" },
  { command: "xz", package: "xz-utils" },
  { command: "zstd", package: "zstd" },
  { command: "dmsetup", package: "dmsetup" },
  { command: "nbdinfo", package: "libnbd-bin" },
  { command: "qemu-img", package: "qemu-utils" },
  { command: "nbd-client", package: "nbd-client" },
  { command: "nbd-server", package: "nbd-server" },
  { command: "nbdkit", package: "nbdkit" },
  { command: "zsh", package: "zsh" },
  { command: "fish", package: "fish" },
  { command: "groff", package: "groff" },
  { command: "busybox", package: "busybox-static" },
  { command: "dash", package: "dash" },
];

/** Steps that stay the same, on a fast machine too: what fails here is what has been changed. */
const TORTURE = ["--minutes", "2", "--seed", "1"];

const SUITES: Readonly<Record<string, () => Promise<Counts>>> = {
  checks: async () =>
    sumCounts([
      await runCheck("types", [BUN, "run", "typecheck"]),
      await runCheck("lint", [BUN, "run", "lint"]),
      await runCheck("format", [BUN, "run", "format:check"]),
      await runCheck("build", [BUN, "run", "build"]),
    ]),
  unit: () => runTests("test/unit"),
  conformance: () => runTests("test/conformance"),
  kernel: () => runTestsInVm("test/kernel", ["scripts/vm", "--timeout", "600", "--memory", "4096", "--"]),
  boot: async () => {
    // It boots machines of its own, with the same kernel.
    await ensureVmHost();
    return runTests("test/boot");
  },
  // Each kind once takes an hour: this is for what it has time for, and to see that it runs.
  torture: () => runCheck("torture", [BUN, "run", "torture", ...TORTURE]),
};

async function main(words: readonly string[]): Promise<number> {
  const noSkips = words.includes("--no-skips");
  const chosen = words.filter((word) => word !== "--no-skips");
  const names = chosen.length > 0 ? chosen : Object.keys(SUITES);
  const results: Counts[] = [];
  await ensureInstalled(REQUIREMENTS);
  for (const name of names) {
    const suite = SUITES[name];
    if (suite === undefined) {
      throw new Failure(`unknown suite "${name}": choose from ${Object.keys(SUITES).join(", ")}`, 2);
    }
    console.log(`--- ${name}`);
    results.push(await suite());
  }
  const { passed, failed, skipped } = sumCounts(results);
  for (const name of skipped) console.log(`skipped: ${name}`);
  const lost = noSkips ? skipped.length : 0;
  if (lost > 0) console.log(`${lost} skipped tests count as failed (--no-skips)`);
  const tail = skipped.length > lost ? `, ${skipped.length} skipped` : "";
  console.log(`${passed} passed, ${failed + lost} failed${tail}`);
  return failed + lost === 0 && passed > 0 ? 0 : 1;
}

try {
  process.exit(await main(process.argv.slice(2)));
} catch (error) {
  if (!(error instanceof Failure)) throw error;
  console.error(`scripts/test: ${error.message}`);
  process.exit(error.exitStatus);
}
