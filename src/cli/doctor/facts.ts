/** What the doctor checks. It is read in one place, so that the checks are pure functions. */
import { accessSync, constants, existsSync } from "node:fs";
import { release } from "node:os";
import { buildTarget } from "../help/version.ts";
import { type ModulePlan, planModule } from "../../kmod/plan.ts";
import { type MemoryInfo, memoryInfo } from "../../libc/meminfo.ts";
import { readAttribute, readNumber } from "../../libc/sysfs.ts";
import { nbdNodes, withLeftBehind } from "../../nbd/node/nodes.ts";
import { whyBusy } from "../../nodes/node-use.ts";
import { openersOf } from "../../nodes/openers.ts";
import { findRingObstacle } from "../../ublk/control/control.ts";
import { ublkNodes } from "../../ublk/nodes.ts";
import type { UblkFacts } from "./ublk-check.ts";

/** Sizes are in bytes. Undefined: unknown. */
export interface Facts {
  /** The system that the program was built for, `linux-x64`, and the version of its runtime. */
  readonly program: { readonly target: string; readonly runtime: string };
  /** From uname(2): `6.12.9-amd64`. */
  readonly kernelRelease: string;
  /** A bit mask: capabilities(7). */
  readonly capabilities: bigint | undefined;
  /** Whether root is root of the whole system, not just of a user namespace. */
  readonly initialUserNamespace: boolean;
  readonly sysMounted: boolean;
  /** The file system at /dev: `devtmpfs` where the kernel makes the nodes. */
  readonly devType: string | undefined;
  readonly devWritable: boolean;
  readonly driver: DriverFacts;
  readonly ublk: UblkFacts;
  readonly nodes: readonly NodeFacts[];
  /** Undefined without /proc. */
  readonly memory: MemoryInfo | undefined;
  /** sysctl vm.overcommit_memory. */
  readonly overcommit: number | undefined;
  /** The soft limit RLIMIT_AS; undefined if there is none. */
  readonly addressSpaceLimit: number | undefined;
  /** The path of the C library that is loaded. */
  readonly cLibrary: string | undefined;
}

export interface DriverFacts {
  /** How attaching would load the module. */
  readonly plan: ModulePlan;
  /** The module's parameter max_part: how many partitions each node can have. */
  readonly maxPart: number | undefined;
}

export interface NodeFacts {
  readonly path: string;
  readonly free: boolean;
  /** Whether the path exists. */
  readonly inDev: boolean;
  /** Attached, but its server is gone. */
  readonly leftBehind: boolean;
  readonly mounts: readonly string[];
  /** Processes that keep a node without a server open: `cat (process 123)`. */
  readonly openers: readonly string[];
}

export async function readFacts(): Promise<Facts> {
  const kernelRelease = release();
  const limit = /^Max address space\s+(\d+)/m.exec(readAttribute("/proc/self/limits") ?? "")?.[1];
  return {
    program: { target: buildTarget(), runtime: Bun.version },
    kernelRelease,
    capabilities: readCapabilities(),
    initialUserNamespace: /^\s*0\s+0\s+4294967295$/.test(readAttribute("/proc/self/uid_map") ?? ""),
    sysMounted: existsSync("/sys/block"),
    devType: devFileSystem(),
    devWritable: isWritable("/dev"),
    driver: await readDriver(),
    ublk: await readUblk(),
    nodes: readNodes(),
    memory: memoryInfo(),
    overcommit: readNumber("/proc/sys/vm/overcommit_memory"),
    addressSpaceLimit: limit === undefined ? undefined : Number(limit),
    cLibrary: loadedCLibrary(),
  };
}

function readCapabilities(): bigint | undefined {
  const mask = /^CapEff:\s*([0-9a-f]+)$/m.exec(readAttribute("/proc/self/status") ?? "")?.[1];
  return mask === undefined ? undefined : BigInt(`0x${mask}`);
}

/** The topmost file system at /dev: proc_pid_mountinfo(5). */
function devFileSystem(): string | undefined {
  const lines = readAttribute("/proc/self/mountinfo")?.split("\n") ?? [];
  const line = lines.findLast((each) => each.split(" ")[4] === "/dev");
  return line?.split(" - ")[1]?.split(" ")[0];
}

async function readDriver(): Promise<DriverFacts> {
  return {
    plan: await planModule("nbd"),
    maxPart: readNumber("/sys/module/nbd/parameters/max_part"),
  };
}

async function readUblk(): Promise<UblkFacts> {
  const { nodes, unknown } = await ublkNodes();
  return {
    plan: await planModule("ublk_drv"),
    noRing: findRingObstacle(),
    unknown,
    leftBehind: nodes.filter((node) => node.leftBehind).map(({ path }) => path),
    waiting: nodes.filter((node) => node.waiting).map(({ path }) => path),
  };
}

/** Whether nodes can be made there: not on a read-only file system, or as the wrong user. */
function isWritable(directory: string): boolean {
  try {
    accessSync(directory, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

function readNodes(): NodeFacts[] {
  return nbdNodes().map((seen) => {
    const { path, leftBehind, mounts } = withLeftBehind(seen);
    return {
      path,
      free: whyBusy(seen) === undefined,
      inDev: existsSync(path),
      leftBehind,
      mounts,
      openers: leftBehind ? openersOf(path) : [],
    };
  });
}

/** glibc is named by its soname; musl's file is also its dynamic linker. */
function loadedCLibrary(): string | undefined {
  const maps = readAttribute("/proc/self/maps") ?? "";
  return /\s(\/\S*\/(?:libc\.so\.6|libc-[\d.]+\.so|libc\.musl-\S+|ld-musl-\S+))$/m.exec(maps)?.[1];
}
