/** The limits that control groups set to the memory of this process: cgroups(7), of version 2 and of version 1. */
import { readAttribute } from "./sysfs.ts";

/** One group that this process is in, or that such a group lies in. Sizes are bytes. */
export interface MemoryLimit {
  /** As proc_pid_cgroup(5) names groups: `/system.slice/disk.service`. */
  readonly group: string;
  readonly limit: number;
  /** What the group can still take, without the page cache that it can give up, and with swap; may be negative. */
  readonly room: number;
}

/** The text of a file below /proc or /sys; undefined where there is none. */
export type ReadAttribute = (path: string) => string | undefined;

/** How a version names things. The fields are those of memory.stat. */
interface Names {
  readonly limits: readonly string[];
  readonly used: string;
  readonly cacheFields: readonly string[];
  /** Of these the page cache cannot be given up: they may have to be written to the very device that asks. */
  readonly dirtyFields: readonly string[];
}

const VERSION_2: Names = {
  // Beyond "high" a process is slowed down until it does next to nothing.
  limits: ["memory.max", "memory.high"],
  used: "memory.current",
  cacheFields: ["inactive_file", "active_file"],
  dirtyFields: ["file_dirty", "file_writeback"],
};

const VERSION_1: Names = {
  limits: ["memory.limit_in_bytes"],
  used: "memory.usage_in_bytes",
  cacheFields: ["total_inactive_file", "total_active_file"],
  dirtyFields: ["total_dirty", "total_writeback"],
};

/** Where a hierarchy is mounted, and which group is seen there. */
interface Mount {
  readonly group: string;
  readonly directory: string;
}

/**
 * All limits that hold for this process, none where there are no groups.
 * @param swapFree bytes of the system's swap that are free.
 */
export function memoryLimits(swapFree: number, read: ReadAttribute = readAttribute): MemoryLimit[] {
  const groups = read("/proc/self/cgroup")?.split("\n") ?? [];
  return groups.flatMap((line) => {
    // hierarchy:controllers:group
    const [, controllers = "", group = ""] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    const isVersion2 = controllers === "";
    if (!isVersion2 && !controllers.split(",").includes("memory")) return [];
    const mount = findMount(isVersion2, group, read);
    if (mount === undefined) return [];
    return levels(mount, group).flatMap(([name, directory]) => {
      const limit = isVersion2 ? limitOf2(directory, swapFree, read) : limitOf1(directory, swapFree, read);
      return limit === undefined ? [] : [{ group: name, ...limit }];
    });
  });
}

/** proc_pid_mountinfo(5). A mount may show a part of the hierarchy only: that of the group, or somebody else's. */
function findMount(isVersion2: boolean, group: string, read: ReadAttribute): Mount | undefined {
  for (const line of read("/proc/self/mountinfo")?.split("\n") ?? []) {
    const [before = "", after = ""] = line.split(" - ");
    const [type, , options = ""] = after.split(" ");
    const isIt = isVersion2 ? type === "cgroup2" : type === "cgroup" && options.split(",").includes("memory");
    const [, , , root = "", directory = ""] = before.split(" ").map(unescaped);
    if (isIt && isWithin(group, root)) return { group: root, directory };
  }
  return undefined;
}

/** Blanks and the like are written in octal. */
function unescaped(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

function isWithin(group: string, root: string): boolean {
  return root === "/" || group === root || group.startsWith(`${root}/`);
}

/** The group and those that it lies in, as far as they are to be seen, with their directories. */
function levels(mount: Mount, group: string): [string, string][] {
  const root = mount.group === "/" ? "" : mount.group;
  const names = group.slice(root.length).split("/").slice(1).filter(Boolean);
  return Array.from({ length: names.length + 1 }, (_, count): [string, string] => {
    const below = names
      .slice(0, count)
      .map((name) => `/${name}`)
      .join("");
    return [`${root}${below}` || "/", `${mount.directory}${below}`];
  });
}

type Limit = Omit<MemoryLimit, "group">;

function limitOf2(directory: string, swapFree: number, read: ReadAttribute): Limit | undefined {
  const limit = lowest(directory, VERSION_2.limits, read);
  if (limit === undefined) return undefined;
  const swapLimit = lowest(directory, ["memory.swap.max", "memory.swap.high"], read);
  const swapLeft =
    swapLimit === undefined ? swapFree : swapLimit - bytesIn(directory, "memory.swap.current", read);
  const free = limit - bytesIn(directory, VERSION_2.used, read);
  const swap = Math.max(0, Math.min(swapFree, swapLeft));
  return { limit, room: free + swap + reclaimable(directory, VERSION_2, read) };
}

/** There a second limit is on memory and swap together. */
function limitOf1(directory: string, swapFree: number, read: ReadAttribute): Limit | undefined {
  const limit = lowest(directory, VERSION_1.limits, read);
  if (limit === undefined) return undefined;
  const free = limit - bytesIn(directory, VERSION_1.used, read) + swapFree;
  const both = lowest(directory, ["memory.memsw.limit_in_bytes"], read) ?? Number.POSITIVE_INFINITY;
  const bothFree = both - bytesIn(directory, "memory.memsw.usage_in_bytes", read);
  return { limit, room: Math.min(free, bothFree) + reclaimable(directory, VERSION_1, read) };
}

/** Undefined where none is set: "max", or the largest number of pages that the kernel can write. */
function lowest(directory: string, names: readonly string[], read: ReadAttribute): number | undefined {
  const limits = names.map((name) => Number(read(`${directory}/${name}`) ?? "max"));
  const set = limits.filter((limit) => limit <= Number.MAX_SAFE_INTEGER);
  return set.length === 0 ? undefined : Math.min(...set);
}

function bytesIn(directory: string, name: string, read: ReadAttribute): number {
  return Number(read(`${directory}/${name}`) ?? 0);
}

/** Page cache that need not be written anywhere before it is given up. */
function reclaimable(directory: string, names: Names, read: ReadAttribute): number {
  const text = read(`${directory}/memory.stat`) ?? "";
  const sum = (fields: readonly string[]): number =>
    fields.reduce(
      (total, field) => total + Number(new RegExp(`^${field} (\\d+)$`, "m").exec(text)?.[1] ?? 0),
      0,
    );
  return Math.max(0, sum(names.cacheFields) - sum(names.dirtyFields));
}
