/** What the facts mean for tsbuse: one function for each question. */
import { VERSION } from "../help/documentation.ts";
import { formatSize, shellWord } from "../text.ts";
import { type Check, fail, ok, warn } from "./check.ts";
import { checkDriver } from "./driver-check.ts";
import type { DriverFacts, Facts, NodeFacts } from "./facts.ts";
import { checkKernel } from "./kernel-check.ts";
import { checkUblk, checkUblkLeftBehind } from "./ublk-check.ts";
import { CAP_SYS_ADMIN, CAP_SYS_RESOURCE } from "../../uapi/capability.ts";

/** vm.overcommit_memory: the kernel commits no more memory than the limit, sparse or not. */
const OVERCOMMIT_NEVER = 2;

/** All checks, in the order of the output. */
export function runChecks(facts: Facts): Check[] {
  return [
    checkProgram(facts),
    checkFileSystems(facts),
    checkPrivileges(facts),
    checkIoFlusher(facts),
    checkKernel(facts),
    checkUblk(facts),
    ...(facts.ublk.plan.way === "loaded" ? [checkUblkLeftBehind(facts)] : []),
    checkDriver(facts),
    // Without the driver there are no nodes.
    ...(facts.driver.plan.way === "loaded"
      ? [checkNodes(facts), checkPartitions(facts), checkLeftBehind(facts)]
      : []),
    checkMemory(facts),
    checkOvercommit(facts),
    checkAddressSpace(facts),
    checkCLibrary(facts),
  ];
}

/** Which file of a release this is: for bug reports, and for people who need another file. */
function checkProgram({ program }: Facts): Check {
  return ok("program", `tsbuse ${VERSION} for ${program.target}, bun ${program.runtime}`);
}

function checkFileSystems({ capabilities, sysMounted, devType, devWritable, nodes }: Facts): Check {
  const name = "file-systems";
  const missing = [
    // Without /proc the capabilities are unknown.
    ...(capabilities === undefined ? ['"mount -t proc proc /proc"'] : []),
    ...(sysMounted ? [] : ['"mount -t sysfs sysfs /sys"']),
  ];
  if (missing.length > 0) return fail(name, "/proc or /sys is missing", `run ${missing.join(" and ")}`);
  if (devType === "devtmpfs") return ok(name, "/proc, /sys and /dev are what they should be");
  const mount = 'run "mount -t devtmpfs devtmpfs /dev"';
  if (devWritable) {
    const finding = "/dev is no devtmpfs: attaching makes the nodes, but not those of partitions made later";
    return warn(name, finding, `${mount}, or make those with mknod`);
  }
  const found = nodes.some((node) => node.inDev);
  const finding = `/dev is no devtmpfs, and nodes cannot be made in it: ${found ? "some are" : "none is"} there`;
  return found ? warn(name, finding, mount) : fail(name, finding, mount);
}

function checkPrivileges({ capabilities, initialUserNamespace }: Facts): Check {
  const name = "privileges";
  if (!has(capabilities, CAP_SYS_ADMIN)) {
    return fail(name, "no CAP_SYS_ADMIN: devices cannot be attached", "run it with sudo");
  }
  if (!initialUserNamespace) {
    const finding = "root of a user namespace only, which the driver does not accept";
    return fail(name, finding, "run it outside of the container, or in a privileged one");
  }
  return ok(name, "root (CAP_SYS_ADMIN)");
}

function checkIoFlusher({ capabilities }: Facts): Check {
  const name = "io-flusher";
  if (has(capabilities, CAP_SYS_RESOURCE)) return ok(name, "may be set (CAP_SYS_RESOURCE)");
  const finding = "no CAP_SYS_RESOURCE: when memory runs out, the device can wait for itself";
  return warn(name, finding, "run it as root with all capabilities");
}

function has(capabilities: bigint | undefined, bit: number): boolean {
  return capabilities !== undefined && ((capabilities >> BigInt(bit)) & 1n) === 1n;
}

function checkNodes({ nodes, driver }: Facts): Check {
  const name = "nodes";
  const free = nodes.filter((node) => node.free).length;
  const finding = `${nodes.length} of /dev/nbdN, ${free} free`;
  if (free === 0) {
    const more = isBuiltIn(driver) ? "boot with nbd.nbds_max=64" : "load the driver with nbds_max=64";
    return fail(name, finding, nodes.length === 0 ? more : `disconnect one (see "tsbuse list"), or ${more}`);
  }
  const absent = nodes.filter((node) => !node.inDev).length;
  return ok(
    name,
    absent === 0 ? finding : `${finding}, ${absent} not in /dev (attaching makes the one it needs)`,
  );
}

function isBuiltIn({ plan }: DriverFacts): boolean {
  return plan.way === "loaded" && plan.builtIn;
}

function checkPartitions({ driver }: Facts): Check {
  const name = "partitions";
  if (driver.maxPart !== 0) {
    const most = driver.maxPart === undefined ? "" : `, up to ${driver.maxPart} for each node`;
    return ok(name, `appear as /dev/nbdNpM${most}`);
  }
  const remedy = isBuiltIn(driver)
    ? "boot with nbd.max_part=16"
    : 'run "modprobe -r nbd" while nothing is attached, then attach with --max-part 16';
  return warn(name, "do not appear: the driver was loaded with max_part=0", remedy);
}

function checkLeftBehind({ nodes }: Facts): Check {
  const name = "left-behind";
  const left = nodes.filter((node) => node.leftBehind);
  if (left.length === 0) return ok(name, "no node without a server");
  const paths = left.map(({ path }) => path).join(", ");
  return warn(name, `${paths}: attached, but the server is gone`, left.map(endOfUse).join("; "));
}

/** What frees a node whose server is gone: its last user closes it. */
function endOfUse({ path, mounts, openers }: NodeFacts): string {
  if (mounts.length > 0) return `run ${mounts.map((mount) => `"umount ${shellWord(mount)}"`).join(" and ")}`;
  if (openers.length > 0) return `end ${openers.join(" and ")}`;
  return `run "tsbuse disconnect ${path}"`;
}

function checkMemory({ memory }: Facts): Check {
  const name = "memory";
  if (memory === undefined)
    return warn(name, "cannot be told without /proc/meminfo", 'run "mount -t proc proc /proc"');
  const { total, available, swapTotal, swapFree } = memory;
  const swap =
    swapTotal === 0 ? "no swap" : `${formatSize(swapFree)} of ${formatSize(swapTotal)} of swap free`;
  return ok(name, `${formatSize(available)} of ${formatSize(total)} available, ${swap}`);
}

function checkOvercommit({ memory, overcommit }: Facts): Check {
  const name = "overcommit";
  if (overcommit !== OVERCOMMIT_NEVER || memory === undefined)
    return ok(name, "a RAM disk takes memory as it is written");
  const left = formatSize(Math.max(0, memory.commitLimit - memory.committed));
  const finding = `vm.overcommit_memory=2: a RAM disk counts in full, and ${left} can be had`;
  return warn(name, finding, 'for a larger one run "sysctl vm.overcommit_memory=0"');
}

function checkAddressSpace({ addressSpaceLimit }: Facts): Check {
  const name = "address-space";
  if (addressSpaceLimit === undefined) return ok(name, "no limit");
  const finding = `limited to ${formatSize(addressSpaceLimit)}: a RAM disk must be smaller`;
  return warn(name, finding, 'run "ulimit -v unlimited"');
}

function checkCLibrary({ cLibrary }: Facts): Check {
  const name = "c-library";
  if (cLibrary === undefined) return warn(name, "not to be seen", 'run "mount -t proc proc /proc"');
  return ok(name, `${cLibrary.includes("musl") ? "musl" : "glibc"}, ${cLibrary}`);
}
