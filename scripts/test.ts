/**
 * Runs every test and ends with the line `N passed, N failed` (`, N skipped` after it when some were).
 *
 *     scripts/test                  all of them, the kernel tests in the virtual machine
 *     scripts/test --no-skips       a skipped test counts as failed: for CI
 *     scripts/test checks unit      some of the suites: checks, unit, conformance, kernel, boot, torture
 */
import { ensureInstalled, type Requirement } from "./lib/apt.ts";
import { Failure } from "./lib/failure.ts";
import { ensureKernel } from "./lib/kernel.ts";
import { commandTask, RESULTS, sumCounts, testsInVm, testsTask, type TestTask } from "./lib/suites.ts";
import { inOrder, runTasks } from "./lib/tasks.ts";
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
  { command: "ceph-mon", package: "ceph-mon" },
  { command: "ceph-osd", package: "ceph-osd" },
  { command: "radosgw", package: "radosgw" },
  { command: "promtool", package: "prometheus" },
  { command: "zsh", package: "zsh" },
  { command: "fish", package: "fish" },
  { command: "groff", package: "groff" },
  { command: "busybox", package: "busybox-static" },
  { command: "dash", package: "dash" },
  { command: "aarch64-linux-gnu-as", package: "binutils-aarch64-linux-gnu" },
];

/** Steps that stay the same, on a fast machine too: what fails here is what has been changed. */
const TORTURE = ["--minutes", "2", "--seed", "1"];

const VM = ["scripts/vm", "--timeout", "1200", "--memory", "4096", "--"];

const SUITES: Readonly<Record<string, () => readonly TestTask[]>> = {
  checks: () => [
    ...["typecheck", "lint", "format:check"].map((name) => commandTask(name, [BUN, "run", name])),
    commandTask("build", [BUN, "run", "build"]),
  ],
  unit: () => [testsTask("unit")],
  conformance: () => [testsTask("conformance")],
  kernel: () => testsInVm("test/kernel", VM),
  boot: () => [testsTask("boot")],
  // Each kind once takes an hour: this is for what it has time for, and to see that it runs.
  torture: () => [commandTask("torture", [BUN, "run", "torture", ...TORTURE])],
};

/** Those that need the virtual machine. */
const IN_VM: ReadonlySet<string> = new Set(["kernel", "boot", "torture"]);

/** What takes more than two minutes, the longest first: what takes long and begins late keeps everybody waiting. */
const LONGEST = [
  "boot",
  ...[
    "ublk-recovery",
    "signals",
    "queues",
    "attach",
    "handover",
    "memory-limit",
    "in-use",
    "filesystems",
  ].map((name) => `test/kernel/${name}.test.ts`),
  "unit",
  "torture",
];

async function main(words: readonly string[]): Promise<number> {
  const noSkips = words.includes("--no-skips");
  const chosen = words.filter((word) => word !== "--no-skips");
  const names = chosen.length > 0 ? chosen : Object.keys(SUITES);
  const unknown = names.find((name) => !Object.hasOwn(SUITES, name));
  if (unknown !== undefined)
    throw new Failure(`unknown suite "${unknown}": choose from ${Object.keys(SUITES).join(", ")}`, 2);
  await ensureInstalled(REQUIREMENTS);
  if (names.some((name) => IN_VM.has(name))) {
    // Once, and not by several tasks at once.
    await ensureVmHost();
    await ensureKernel();
  }
  // The others run what the first one builds.
  const tasksOf = (group: readonly string[]) =>
    inOrder(
      group.flatMap((name) => SUITES[name]?.() ?? []),
      LONGEST,
    );
  const first = await runTasks(tasksOf(names.filter((name) => name === "checks")), RESULTS);
  const rest = await runTasks(tasksOf(names.filter((name) => name !== "checks")), RESULTS);
  const { passed, failed, skipped, failures } = sumCounts([...first, ...rest]);
  // Once more and last: who sees the end of this output alone sees what failed.
  for (const failure of failures) console.log(`failed:\n${failure}`);
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
