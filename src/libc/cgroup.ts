/** The memory limits that control groups set for this process: cgroups(7), versions 1 and 2. */
import { readAttribute, unescapeOctal } from "./sysfs.ts";

/** A group that this process belongs to, or an ancestor of one. Sizes are bytes. */
export interface MemoryLimit {
  /** As proc_pid_cgroup(5) names groups: `/system.slice/disk.service`. */
  readonly group: string;
  readonly limit: number;
  /** What the group can still use, including swap and the page cache that it can give up; may be negative. */
  readonly room: number;
}

/** The text of a file below /proc or /sys; undefined if it does not exist. */
export type ReadAttribute = (path: string) => string | undefined;

/** The names that a version uses. Fields are those of memory.stat. */
interface Names {
  readonly limits: readonly string[];
  readonly used: string;
  readonly cacheFields: readonly RegExp[];
  /** Dirty pages of the page cache cannot be reclaimed: they may have to be written to the very device that asks. */
  readonly dirtyFields: readonly RegExp[];
}

const VERSION_2: Names = {
  // Beyond "high" a process is slowed down until it does next to nothing.
  limits: ["memory.max", "memory.high"],
  used: "memory.current",
  cacheFields: [/^inactive_file (\d+)$/m, /^active_file (\d+)$/m],
  dirtyFields: [/^file_dirty (\d+)$/m, /^file_writeback (\d+)$/m],
};

const VERSION_1: Names = {
  limits: ["memory.limit_in_bytes"],
  used: "memory.usage_in_bytes",
  cacheFields: [/^total_inactive_file (\d+)$/m, /^total_active_file (\d+)$/m],
  dirtyFields: [/^total_dirty (\d+)$/m, /^total_writeback (\d+)$/m],
};

/** Where a hierarchy is mounted, and which group the mount shows. */
interface Mount {
  readonly group: string;
  readonly directory: string;
}

/** A group whose limits apply to this process. */
interface Level {
  readonly group: string;
  readonly directory: string;
  readonly isVersion2: boolean;
}

/** The limits of this process's groups. While the groups stay the same, reading the limits makes few objects. */
export class MemoryLimits {
  readonly #read: ReadAttribute;
  #groups: string | undefined;
  #levels: readonly Level[] = [];

  constructor(read: ReadAttribute = readAttribute) {
    this.#read = read;
  }

  /**
   * All limits that apply now; none without groups.
   * @param swapFree free swap space of the system, in bytes.
   */
  look(swapFree: number): readonly MemoryLimit[] {
    const groups = this.#read("/proc/self/cgroup");
    if (groups !== this.#groups) {
      this.#levels = levelsOf(groups ?? "", this.#read);
      // An initramfs mounts them late.
      this.#groups = this.#levels.length > 0 ? groups : undefined;
    }
    const limits: MemoryLimit[] = [];
    for (const { group, directory, isVersion2 } of this.#levels) {
      const limit = isVersion2
        ? limitOf2(directory, swapFree, this.#read)
        : limitOf1(directory, swapFree, this.#read);
      if (limit !== undefined) limits.push({ group, ...limit });
    }
    return limits;
  }
}

/** @param groups the text of /proc/self/cgroup: a line "hierarchy:controllers:group" for each. */
function levelsOf(groups: string, read: ReadAttribute): Level[] {
  return groups.split("\n").flatMap((line) => {
    const [, controllers = "", group = ""] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    const isVersion2 = controllers === "";
    if (!isVersion2 && !controllers.split(",").includes("memory")) return [];
    const mount = findMount(isVersion2, group, read);
    if (mount === undefined) return [];
    return levels(mount, group).map(([name, directory]) => ({ group: name, directory, isVersion2 }));
  });
}

/** proc_pid_mountinfo(5). A mount may show only a part of the hierarchy: with our group, or without it. */
function findMount(isVersion2: boolean, group: string, read: ReadAttribute): Mount | undefined {
  for (const line of read("/proc/self/mountinfo")?.split("\n") ?? []) {
    const [before = "", after = ""] = line.split(" - ");
    const [type, , options = ""] = after.split(" ");
    const isIt = isVersion2 ? type === "cgroup2" : type === "cgroup" && options.split(",").includes("memory");
    const [, , , root = "", directory = ""] = before.split(" ").map(unescapeOctal);
    if (isIt && isWithin(group, root)) return { group: root, directory };
  }
  return undefined;
}

function isWithin(group: string, root: string): boolean {
  return root === "/" || group === root || group.startsWith(`${root}/`);
}

/** The group and its ancestors, as far as they are visible, with their directories. */
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

/** Version 1 has a second limit, on memory and swap together. */
function limitOf1(directory: string, swapFree: number, read: ReadAttribute): Limit | undefined {
  const limit = lowest(directory, VERSION_1.limits, read);
  if (limit === undefined) return undefined;
  const free = limit - bytesIn(directory, VERSION_1.used, read) + swapFree;
  const both = lowest(directory, ["memory.memsw.limit_in_bytes"], read) ?? Number.POSITIVE_INFINITY;
  const bothFree = both - bytesIn(directory, "memory.memsw.usage_in_bytes", read);
  return { limit, room: Math.min(free, bothFree) + reclaimable(directory, VERSION_1, read) };
}

/** The lowest limit; undefined if none is set: "max", or the largest number of pages that the kernel can express. */
function lowest(directory: string, names: readonly string[], read: ReadAttribute): number | undefined {
  let least: number | undefined;
  for (const name of names) {
    const limit = Number(read(`${directory}/${name}`) ?? "max");
    if (limit <= Number.MAX_SAFE_INTEGER && !(limit >= (least ?? limit + 1))) least = limit;
  }
  return least;
}

function bytesIn(directory: string, name: string, read: ReadAttribute): number {
  return Number(read(`${directory}/${name}`) ?? 0);
}

/** Page cache that can be given up without writing it first. */
function reclaimable(directory: string, names: Names, read: ReadAttribute): number {
  const text = read(`${directory}/memory.stat`) ?? "";
  let bytes = 0;
  for (const field of names.cacheFields) bytes += Number(field.exec(text)?.[1] ?? 0);
  for (const field of names.dirtyFields) bytes -= Number(field.exec(text)?.[1] ?? 0);
  return Math.max(0, bytes);
}
