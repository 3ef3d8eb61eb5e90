/** Goal: every limit that control groups set for this process is found, in either version, however they are mounted. */
import { expect, test } from "bun:test";
import { type MemoryLimit, MemoryLimits } from "../../src/libc/cgroup.ts";

type Files = Readonly<Record<string, string>>;

const MOUNTS_2 = "25 30 0:23 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw";
const STAT_2 =
  "anon 5\nfile 900\nfile_dirty 20\nfile_writeback 3\ninactive_file 500\nactive_file 400\nshmem 7";

/** The memory.* files of one group. */
function group(directory: string, attributes: Files): Files {
  return Object.fromEntries(
    Object.entries(attributes).map(([name, text]) => [`${directory}/memory.${name}`, text]),
  );
}

const LIMITED = { max: "10000", high: "max", current: "4000", stat: STAT_2 };

test.each<[string, Files, number, MemoryLimit[]]>([
  ["no /proc", {}, 0, []],
  ["no mount", { "/proc/self/cgroup": "0::/a", ...group("/sys/fs/cgroup/a", LIMITED) }, 0, []],
  [
    "the root group, without limits",
    {
      "/proc/self/cgroup": "0::/",
      "/proc/self/mountinfo": MOUNTS_2,
      ...group("/sys/fs/cgroup", { stat: STAT_2 }),
    },
    0,
    [],
  ],
  [
    "a group and the one it lies in; what can be given up of the page cache is room",
    {
      "/proc/self/cgroup": "0::/a/b.scope",
      "/proc/self/mountinfo": `24 30 0:22 / /sys rw - sysfs sysfs rw\n${MOUNTS_2}`,
      ...group("/sys/fs/cgroup/a", { max: "20000", high: "9000", current: "5000" }),
      ...group("/sys/fs/cgroup/a/b.scope", LIMITED),
    },
    0,
    [
      { group: "/a", limit: 9000, room: 4000 },
      { group: "/a/b.scope", limit: 10_000, room: 6877 },
    ],
  ],
  [
    "swap, as far as the group may have it and there is some",
    {
      "/proc/self/cgroup": "0::/a/b/c",
      "/proc/self/mountinfo": MOUNTS_2,
      ...group("/sys/fs/cgroup/a", { max: "9000", current: "1000", "swap.max": "max", "swap.current": "7" }),
      ...group("/sys/fs/cgroup/a/b", { max: "9000", current: "1000", "swap.max": "50", "swap.current": "7" }),
      ...group("/sys/fs/cgroup/a/b/c", {
        max: "9000",
        current: "9500",
        "swap.max": "0",
        "swap.current": "0",
      }),
    },
    300,
    [
      { group: "/a", limit: 9000, room: 8300 },
      { group: "/a/b", limit: 9000, room: 8043 },
      { group: "/a/b/c", limit: 9000, room: -500 },
    ],
  ],
  [
    "a container that sees its own part alone, at a path with a blank",
    {
      "/proc/self/cgroup": "0::/docker/1f/init",
      "/proc/self/mountinfo": String.raw`25 30 0:23 /docker/1f /my\040groups ro - cgroup2 cgroup rw`,
      ...group("/my groups", LIMITED),
    },
    0,
    [{ group: "/docker/1f", limit: 10_000, room: 6877 }],
  ],
  [
    "somebody else's part",
    {
      "/proc/self/cgroup": "0::/docker/1f",
      "/proc/self/mountinfo": "25 30 0:23 /docker/1 /sys/fs/cgroup ro - cgroup2 cgroup rw",
      ...group("/sys/fs/cgroup", LIMITED),
    },
    0,
    [],
  ],
  [
    "version 1, with a limit on memory and swap together; version 2 beside it has no memory",
    {
      "/proc/self/cgroup": "12:cpu,cpuacct:/x\n4:memory:/a/b\n1:name=systemd:/x\n0::/x",
      "/proc/self/mountinfo": [
        "40 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
        "41 30 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
        "42 30 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
      ].join("\n"),
      ...group("/sys/fs/cgroup/memory", { limit_in_bytes: "9223372036854771712", usage_in_bytes: "1" }),
      ...group("/sys/fs/cgroup/memory/a", { limit_in_bytes: "9000", usage_in_bytes: "1000" }),
      ...group("/sys/fs/cgroup/memory/a/b", {
        limit_in_bytes: "8000",
        usage_in_bytes: "1000",
        "memsw.limit_in_bytes": "8100",
        "memsw.usage_in_bytes": "1000",
        stat: "inactive_file 1\ntotal_inactive_file 50\ntotal_active_file 40\ntotal_dirty 20\ntotal_writeback 3",
      }),
    },
    300,
    [
      { group: "/a", limit: 9000, room: 8300 },
      { group: "/a/b", limit: 8000, room: 7167 },
    ],
  ],
])("%s", (_, files, swapFree, limits) => {
  const groups = new MemoryLimits((path) => files[path]);
  expect(groups.look(swapFree)).toEqual(limits);
  expect(groups.look(swapFree)).toEqual(limits);
});

test("a process that is moved, and a group whose limit is changed, or that is mounted later", () => {
  const files: Record<string, string> = {
    "/proc/self/cgroup": "0::/a",
    ...group("/sys/fs/cgroup/a", LIMITED),
  };
  const groups = new MemoryLimits((path) => files[path]);
  const limits = (): (string | number)[][] => groups.look(0).map((each) => [each.group, each.limit]);
  expect(limits()).toEqual([]);
  files["/proc/self/mountinfo"] = MOUNTS_2;
  expect(limits()).toEqual([["/a", 10_000]]);
  files["/sys/fs/cgroup/a/memory.high"] = "9000";
  expect(limits()).toEqual([["/a", 9000]]);
  files["/proc/self/cgroup"] = "0::/b";
  Object.assign(files, group("/sys/fs/cgroup/b", { max: "7000" }));
  expect(limits()).toEqual([["/b", 7000]]);
});
