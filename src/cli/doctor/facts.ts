/** What the doctor looks at: read in one place, so that the checks are functions of it. */
import { existsSync } from "node:fs";
import { release } from "node:os";
import { readAttribute, readNumber } from "../../libc/sysfs.ts";
import { whyBusy } from "../../nbd/nodes.ts";
import { isAttached, nbdNodes } from "../attached-nodes.ts";

/** Sizes are bytes. Undefined: it cannot be told. */
export interface Facts {
  /** As uname(2) has it: `6.12.9-amd64`. */
  readonly kernelRelease: string;
  /** The bits of capabilities(7). */
  readonly capabilities: bigint | undefined;
  /** Whether root is root of the whole system, and not of a user namespace only. */
  readonly initialUserNamespace: boolean;
  readonly sysMounted: boolean;
  /** What /dev is: `devtmpfs` where the kernel makes the nodes. */
  readonly devType: string | undefined;
  readonly driver: DriverFacts;
  readonly nodes: readonly NodeFacts[];
  readonly memory: MemoryFacts;
  /** The soft limit RLIMIT_AS; undefined when there is none. */
  readonly addressSpaceLimit: number | undefined;
  /** The path of the C library that is loaded. */
  readonly cLibrary: string | undefined;
}

export interface DriverFacts {
  readonly loaded: boolean;
  readonly builtIn: boolean;
  /** The module file, relative to the directory of modules. */
  readonly modulePath: string | undefined;
  /** `/lib/modules/RELEASE` and the state it is in. */
  readonly modules: "absent" | "no index" | "indexed";
  /** sysctl kernel.modules_disabled. */
  readonly loadingDisabled: boolean;
  readonly modprobe: boolean;
  /** The module's parameter: how many partitions each node can have. */
  readonly maxPart: number | undefined;
}

export interface NodeFacts {
  readonly path: string;
  readonly free: boolean;
  /** Whether the path is there. */
  readonly inDev: boolean;
  /** Attached, though no server is to be seen. */
  readonly leftBehind: boolean;
  readonly mounts: readonly string[];
}

export interface MemoryFacts {
  readonly total: number | undefined;
  readonly available: number | undefined;
  readonly swapTotal: number | undefined;
  readonly swapFree: number | undefined;
  /** sysctl vm.overcommit_memory. */
  readonly overcommit: number | undefined;
  readonly commitLimit: number | undefined;
  readonly committed: number | undefined;
}

const MODPROBE_PATH = "/usr/sbin:/sbin:/usr/bin:/bin";

export function readFacts(): Facts {
  const kernelRelease = release();
  const limit = /^Max address space\s+(\d+)/m.exec(readAttribute("/proc/self/limits") ?? "")?.[1];
  return {
    kernelRelease,
    capabilities: readCapabilities(),
    initialUserNamespace: /^\s*0\s+0\s+4294967295$/.test(readAttribute("/proc/self/uid_map") ?? ""),
    sysMounted: existsSync("/sys/block"),
    devType: devFileSystem(),
    driver: readDriver(kernelRelease),
    nodes: readNodes(),
    memory: readMemory(),
    addressSpaceLimit: limit === undefined ? undefined : Number(limit),
    cLibrary: loadedCLibrary(),
  };
}

function readCapabilities(): bigint | undefined {
  const mask = /^CapEff:\s*([0-9a-f]+)$/m.exec(readAttribute("/proc/self/status") ?? "")?.[1];
  return mask === undefined ? undefined : BigInt(`0x${mask}`);
}

/** The file system mounted last at /dev: proc_pid_mountinfo(5). */
function devFileSystem(): string | undefined {
  const lines = readAttribute("/proc/self/mountinfo")?.split("\n") ?? [];
  const line = lines.findLast((each) => each.split(" ")[4] === "/dev");
  return line?.split(" - ")[1]?.split(" ")[0];
}

function readDriver(kernelRelease: string): DriverFacts {
  const directory = `/lib/modules/${kernelRelease}`;
  const index = readAttribute(`${directory}/modules.dep`);
  const missing = existsSync(directory) ? "no index" : "absent";
  return {
    loaded: existsSync("/sys/module/nbd") || existsSync("/sys/block/nbd0"),
    builtIn: /(^|\/)nbd\.ko$/m.test(readAttribute(`${directory}/modules.builtin`) ?? ""),
    modulePath: /^(\S*\/nbd\.ko\S*):/m.exec(index ?? "")?.[1],
    modules: index === undefined ? missing : "indexed",
    loadingDisabled: readNumber("/proc/sys/kernel/modules_disabled") === 1,
    modprobe: Bun.which("modprobe", { PATH: MODPROBE_PATH }) !== null,
    maxPart: readNumber("/sys/module/nbd/parameters/max_part"),
  };
}

function readNodes(): NodeFacts[] {
  return nbdNodes().map((state) => ({
    path: state.path,
    free: whyBusy(state) === undefined,
    inDev: existsSync(state.path),
    leftBehind: isAttached(state) && state.pid === undefined,
    mounts: state.mounts,
  }));
}

function readMemory(): MemoryFacts {
  const text = readAttribute("/proc/meminfo") ?? "";
  const bytes = (field: string): number | undefined => {
    const kibibytes = new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(text)?.[1];
    return kibibytes === undefined ? undefined : Number(kibibytes) * 1024;
  };
  return {
    total: bytes("MemTotal"),
    available: bytes("MemAvailable"),
    swapTotal: bytes("SwapTotal"),
    swapFree: bytes("SwapFree"),
    overcommit: readNumber("/proc/sys/vm/overcommit_memory"),
    commitLimit: bytes("CommitLimit"),
    committed: bytes("Committed_AS"),
  };
}

/** glibc goes by its soname; musl's file is its dynamic linker as well. */
function loadedCLibrary(): string | undefined {
  const maps = readAttribute("/proc/self/maps") ?? "";
  return /\s(\/\S*\/(?:libc\.so\.6|libc-[\d.]+\.so|libc\.musl-\S+|ld-musl-\S+))$/m.exec(maps)?.[1];
}
