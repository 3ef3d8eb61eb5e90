/** The doctor's findings on many systems, from their facts. */
import { describe, expect, test } from "bun:test";
import { doctorReport } from "../../../../src/cli/commands/doctor.ts";
import type { Check, Status } from "../../../../src/cli/doctor/check.ts";
import { runChecks } from "../../../../src/cli/doctor/checks.ts";
import { type DriverFacts, type Facts, type NodeFacts, readFacts } from "../../../../src/cli/doctor/facts.ts";
import type { UblkFacts } from "../../../../src/cli/doctor/ublk-check.ts";
import type { MemoryInfo } from "../../../../src/libc/meminfo.ts";
import { tsbuse } from "../tsbuse.ts";

const GIB = 2 ** 30;

const DRIVER: DriverFacts = { plan: { way: "loaded", builtIn: false }, maxPart: 31 };
const BUILT_IN: DriverFacts = { ...DRIVER, plan: { way: "loaded", builtIn: true } };

function absent(plan: DriverFacts["plan"]): DriverFacts {
  return { plan, maxPart: undefined };
}

const MODULE = "/lib/modules/6.12.9-amd64/kernel/drivers/block/nbd.ko.xz";

const MEMORY: MemoryInfo = {
  total: 16 * GIB,
  available: 12 * GIB,
  swapTotal: 0,
  swapFree: 0,
  commitLimit: 8 * GIB,
  committed: 3 * GIB,
};

const FREE: NodeFacts = {
  path: "/dev/nbd0",
  free: true,
  inDev: true,
  leftBehind: false,
  mounts: [],
  openers: [],
};
const USED: NodeFacts = { ...FREE, path: "/dev/nbd1", free: false };
const LEFT: NodeFacts = { ...USED, leftBehind: true };

/** A system without problems. */
const HEALTHY: Facts = {
  program: { target: "linux-x64", runtime: "1.2.3" },
  kernelRelease: "6.12.9-amd64",
  capabilities: 0x1ff_ffff_ffffn,
  initialUserNamespace: true,
  sysMounted: true,
  devType: "devtmpfs",
  devWritable: true,
  driver: DRIVER,
  ublk: {
    plan: { way: "loaded", builtIn: false },
    noRing: undefined,
    unknown: undefined,
    leftBehind: [],
    waiting: [],
  },
  nodes: [FREE, USED],
  memory: MEMORY,
  overcommit: 0,
  addressSpaceLimit: undefined,
  cLibrary: "/usr/lib/x86_64-linux-gnu/libc.so.6",
};

/** The healthy system except for these facts. */
function ublk(otherwise: Partial<UblkFacts>): Partial<Facts> {
  return { ublk: { ...HEALTHY.ublk, ...otherwise } };
}

/** All bits except 21, and all except 24. */
const NO_SYS_ADMIN = 0x1ff_ffdf_ffffn;
const NO_SYS_RESOURCE = 0x1ff_feff_ffffn;

test("a healthy system", () => {
  const checks = runChecks(HEALTHY);
  expect(checks.map(({ name }) => name)).toEqual([
    "program",
    "file-systems",
    "privileges",
    "io-flusher",
    "kernel",
    "ublk",
    "ublk-left-behind",
    "driver",
    "nodes",
    "partitions",
    "left-behind",
    "memory",
    "overcommit",
    "address-space",
    "c-library",
  ]);
  for (const { status, remedy } of checks) expect([status, remedy]).toEqual(["ok", undefined]);
});

// The difference, the check that finds it, its status, and words of its finding and remedy.
const CASES: readonly (readonly [Partial<Facts>, string, Status, string, string?])[] = [
  [{ capabilities: undefined }, "file-systems", "fail", "missing", 'run "mount -t proc proc /proc"'],
  [{ sysMounted: false }, "file-systems", "fail", "missing", 'run "mount -t sysfs sysfs /sys"'],
  [{ devType: "tmpfs" }, "file-systems", "warn", "no devtmpfs", "mount -t devtmpfs"],
  [{ devType: undefined }, "file-systems", "warn", "attaching makes the nodes", "mknod"],
  [{ devType: "tmpfs", devWritable: false }, "file-systems", "warn", "some are there", "mount -t devtmpfs"],
  [
    { devType: "tmpfs", devWritable: false, nodes: [{ ...FREE, inDev: false }] },
    "file-systems",
    "fail",
    "none is there",
    "mount -t devtmpfs",
  ],
  [{ capabilities: 0n }, "privileges", "fail", "no CAP_SYS_ADMIN", "sudo"],
  [{ capabilities: NO_SYS_ADMIN }, "privileges", "fail", "no CAP_SYS_ADMIN", "sudo"],
  [{ initialUserNamespace: false }, "privileges", "fail", "user namespace", "outside of the container"],
  [{ capabilities: NO_SYS_RESOURCE }, "io-flusher", "warn", "no CAP_SYS_RESOURCE", "all capabilities"],
  [{ capabilities: NO_SYS_RESOURCE }, "privileges", "ok", "root"],

  [{ kernelRelease: "7.0.0-rc1" }, "kernel", "ok", "7.0.0-rc1"],
  [{ kernelRelease: "6.12.0" }, "kernel", "ok", "6.12.0"],
  [{ kernelRelease: "6.11.10" }, "kernel", "warn", "write zeroes and the rotational flag over NBD", "newer"],
  [{ kernelRelease: "5.14.0-503.el9" }, "kernel", "warn", "write zeroes", "newer"],
  [{ kernelRelease: "5.10.0" }, "kernel", "warn", "--populate (5.14), ublk devices (6.5), write", "newer"],
  [{ kernelRelease: "5.4.0" }, "kernel", "warn", "memory runs out (5.6), --populate (5.14), ublk", "newer"],
  [{ kernelRelease: "4.19.0" }, "kernel", "warn", "memory runs out (5.6)", "newer"],
  [{ kernelRelease: "unheard of" }, "kernel", "warn", "nothing is known", "6.12"],

  [ublk({}), "ublk", "ok", "loaded"],
  [
    ublk({ noRing: "io_uring is off: use NBD" }),
    "ublk",
    "warn",
    "cannot be used, io_uring is off",
    "use NBD",
  ],
  [
    ublk({ unknown: "io_uring is off: use NBD" }),
    "ublk-left-behind",
    "warn",
    "not known, io_uring",
    "use NBD",
  ],
  [
    { kernelRelease: "6.18.4-arch1-1" },
    "ublk",
    "warn",
    "is known to crash when a device is made (https:",
    "another kernel",
  ],
  [
    ublk({ plan: { way: "none", cause: "there is none", remedy: "build it" } }),
    "ublk",
    "warn",
    "there is none",
    "NBD nodes",
  ],
  [
    ublk({ leftBehind: ["/dev/ublkb3"], waiting: ["/dev/ublkb4"] }),
    "ublk-left-behind",
    "warn",
    "/dev/ublkb3: the server is gone; /dev/ublkb4: waiting for another server",
    '"tsbuse disconnect /dev/ublkb3", "tsbuse recover /dev/ublkb4 …"',
  ],

  [{ driver: BUILT_IN }, "driver", "ok", "built into the kernel"],
  [{ driver: absent({ way: "hidden" }) }, "driver", "fail", "/sys does not show it", "/sys is mounted"],
  [
    { driver: absent({ way: "modprobe", program: "/sbin/modprobe", files: [MODULE] }) },
    "driver",
    "ok",
    "attaching a device loads it with /sbin/modprobe",
  ],
  [
    { driver: absent({ way: "files", files: ["/m/first.ko", MODULE] }) },
    "driver",
    "ok",
    `attaching a device loads /m/first.ko, then ${MODULE}`,
  ],
  [
    { driver: absent({ way: "none", cause: "something is in the way", remedy: "mend it" }) },
    "driver",
    "fail",
    "nbd is not loaded, and something is in the way",
    "mend it",
  ],

  [{ nodes: [FREE, USED, USED] }, "nodes", "ok", "3 of /dev/nbdN, 1 free"],
  [{ nodes: [{ ...FREE, inDev: false }, USED] }, "nodes", "ok", "1 not in /dev"],
  [{ nodes: [USED] }, "nodes", "fail", "1 of /dev/nbdN, 0 free", "disconnect one"],
  [{ nodes: [] }, "nodes", "fail", "0 of /dev/nbdN", "load the driver with nbds_max=64"],
  [{ nodes: [], driver: BUILT_IN }, "nodes", "fail", "0 free", "boot with nbd.nbds_max=64"],
  [{ driver: { ...DRIVER, maxPart: 0 } }, "partitions", "warn", "max_part=0", "attach with --max-part 16"],
  [{ driver: { ...BUILT_IN, maxPart: 0 } }, "partitions", "warn", "do not", "boot with nbd.max_part=16"],
  [{ driver: { ...DRIVER, maxPart: undefined } }, "partitions", "ok", "appear as /dev/nbdNpM"],
  [{ nodes: [FREE, LEFT] }, "left-behind", "warn", "/dev/nbd1", '"tsbuse disconnect /dev/nbd1"'],
  [
    { nodes: [FREE, { ...LEFT, mounts: ["/mnt/my data"] }] },
    "left-behind",
    "warn",
    "/dev/nbd1",
    `run "umount '/mnt/my data'"`,
  ],
  [
    { nodes: [FREE, { ...USED, leftBehind: true, openers: ["cat (process 7)"] }] },
    "left-behind",
    "warn",
    "/dev/nbd1",
    "end cat (process 7)",
  ],

  [{ memory: MEMORY }, "memory", "ok", "12 GiB of 16 GiB available, no swap"],
  [{ memory: { ...MEMORY, swapTotal: 4 * GIB, swapFree: GIB } }, "memory", "ok", "1 GiB of 4 GiB"],
  [{ memory: undefined }, "memory", "warn", "/proc/meminfo", "mount -t proc"],
  [{ overcommit: 1 }, "overcommit", "ok", "as it is written"],
  [{ overcommit: 2 }, "overcommit", "warn", "5 GiB can be had", "sysctl vm.overcommit_memory=0"],
  [
    { overcommit: 2, memory: { ...MEMORY, committed: 9 * GIB } },
    "overcommit",
    "warn",
    "0 B can be had",
    "sysctl",
  ],
  [{ addressSpaceLimit: 2 * GIB }, "address-space", "warn", "limited to 2 GiB", "ulimit -v unlimited"],
  [{ cLibrary: "/lib/ld-musl-x86_64.so.1" }, "c-library", "ok", "musl, /lib/ld-musl-x86_64.so.1"],
  [{}, "program", "ok", "for linux-x64, bun 1.2.3"],
  [{ cLibrary: undefined }, "c-library", "warn", "not to be seen", "mount -t proc"],
];

for (const [otherwise, name, status, finding, remedy] of CASES) {
  test(`${name}, ${status}: ${finding}`, () => {
    const check = runChecks({ ...HEALTHY, ...otherwise }).find((each) => each.name === name);
    expect(check?.status).toBe(status);
    expect(check?.finding).toContain(finding);
    if (remedy === undefined) expect(check?.remedy).toBeUndefined();
    else expect(check?.remedy).toContain(remedy);
  });
}

test("nothing is said of nodes while there is no driver", () => {
  const names = runChecks({ ...HEALTHY, driver: absent({ way: "hidden" }), nodes: [] }).map(
    ({ name }) => name,
  );
  expect(names).not.toContain("nodes");
  expect(names).not.toContain("partitions");
});

test("the report: a line for each check, a remedy below", () => {
  const checks: Check[] = [
    { name: "one", status: "ok", finding: "fine" },
    { name: "two", status: "warn", finding: "so so", remedy: "mend it" },
    { name: "three", status: "fail", finding: "broken", remedy: "replace it" },
  ];
  expect(doctorReport(checks)).toBe(`ok    one: fine
warn  two: so so
      remedy: mend it
FAIL  three: broken
      remedy: replace it`);
});

describe("as a command", () => {
  const report = tsbuse("doctor");
  const json = tsbuse("doctor", "--json");

  test("each line is a check or a remedy, and a failure is exit status 1", () => {
    for (const line of report.stdout.trimEnd().split("\n")) {
      expect(line).toMatch(/^(ok  |warn|FAIL) {2}[a-z-]+: \S|^ {6}remedy: \S/);
    }
    expect(report.stderr).toBe("");
    expect(report.status).toBe(/^FAIL/m.test(report.stdout) ? 1 : 0);
  });

  test("--json says the same", () => {
    const checks = JSON.parse(json.stdout) as readonly Check[];
    const words = { ok: "ok  ", warn: "warn", fail: "FAIL" } as const;
    // Findings about memory change from run to run.
    for (const { name, status } of checks) expect(report.stdout).toContain(`${words[status]}  ${name}: `);
    for (const { status, remedy } of checks)
      expect(typeof remedy).toBe(status === "ok" ? "undefined" : "string");
    expect(json.status).toBe(report.status);
  });
});

test("the facts of this system", async () => {
  const facts = await readFacts();
  expect(facts.capabilities).toBeDefined();
  expect(facts.sysMounted).toBe(true);
  expect(facts.kernelRelease).toMatch(/^\d+\.\d+/);
  expect(facts.cLibrary).toMatch(/libc|musl/);
  expect(facts.memory?.total).toBeGreaterThan(0);
  expect(facts.overcommit).toBeWithin(0, 3);
});
