/**
 * Runs every test. The last line is `N passed, N failed`, with `, N skipped` behind it if tests were skipped.
 *
 *     scripts/test                  all of them, the kernel tests in the virtual machine
 *     scripts/test --no-skips       count a skipped test as failed: for CI
 *     scripts/test checks unit      some of the suites: checks, unit, conformance, kernel, boot, torture
 */
import { ensureInstalled, type Requirement } from "./lib/apt.ts";
import { Failure } from "./lib/failure.ts";
import { ensureKernel } from "./lib/kernel.ts";
import { commandTask, RESULTS, sumCounts, testsInVm, testsTask, type TestTask } from "./lib/suites.ts";
import { inOrder, runTasks } from "./lib/tasks.ts";
import { ensureVmHost } from "./lib/vm-host.ts";

const BUN = process.execPath;

/** The programs and headers that the tests need. */
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

/** A fixed seed, so that the steps stay the same: a new failure comes from a change. */
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
  // Every kind of step once takes an hour. Two minutes cover some, and show that the soak itself works.
  torture: () => [commandTask("torture", [BUN, "run", "torture", ...TORTURE])],
};

/** Those that need the virtual machine. */
const IN_VM: ReadonlySet<string> = new Set(["kernel", "boot", "torture"]);

/** The tasks of more than two minutes, the longest first: one that starts late makes the whole run longer. */
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
    // Here, so that several tasks do not do it at the same time.
    await ensureVmHost();
    await ensureKernel();
  }
  // The other suites run the binary that "checks" builds.
  const tasksOf = (group: readonly string[]) =>
    inOrder(
      group.flatMap((name) => SUITES[name]?.() ?? []),
      LONGEST,
    );
  const first = await runTasks(tasksOf(names.filter((name) => name === "checks")), RESULTS);
  const rest = await runTasks(tasksOf(names.filter((name) => name !== "checks")), RESULTS);
  const { passed, failed, skipped, failures } = sumCounts([...first, ...rest]);
  // Repeated at the end, for readers who see only the end of the output.
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
