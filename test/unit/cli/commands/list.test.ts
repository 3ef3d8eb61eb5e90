/** The output of `tsbuse list`. */
import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { listJson, listTable } from "../../../../src/cli/commands/list.ts";
import type { NodeState } from "../../../../src/nodes/node-state.ts";
import { FREE } from "../../../support/node-state.ts";
import { tsbuse } from "../tsbuse.ts";

/** The capabilities of a complete device. */
const ALL = { flush: true, fua: true, trim: true, writeZeroes: true } as const;
const COMMAND = "tsbuse loop disk.img /dev/nbd0";
const DISK: NodeState = {
  ...FREE,
  ...ALL,
  name: "nbd0",
  path: "/dev/nbd0",
  size: 512 * 2 ** 20,
  attached: true,
  pid: 4711,
  command: COMMAND,
};

describe("the table", () => {
  test("is aligned, the command last and whole", () => {
    const mounted: NodeState = {
      ...FREE,
      path: "/dev/nbd12",
      size: 1_610_612_736,
      blockSize: 4096,
      readOnly: true,
      rotational: true,
      pid: 7,
      command: `nbdkit ${"x".repeat(300)}`,
      mounts: ["/mnt"],
      holders: ["swap"],
      partitions: ["nbd12p1"],
    };
    expect(listTable([DISK, mounted])).toBe(
      `
NODE          SIZE  BLOCK  FLAGS                   PID  MOUNTED/HELD  COMMAND
/dev/nbd0   512MiB    512  flush,fua,trim,zeroes  4711  -             tsbuse loop disk.img /dev/nbd0
/dev/nbd12  1.5GiB   4096  ro,rotational             7  /mnt,swap     nbdkit ${"x".repeat(300)}
`.trim(),
    );
  });

  test("a node without a server says so", () => {
    const unseen: NodeState = { ...DISK, pid: undefined, command: undefined, mounts: ["/mnt"] };
    expect(listTable([unseen])).toEndWith("  (no process is to be seen)");
    expect(listTable([{ ...unseen, leftBehind: true }])).toBe(
      `
NODE         SIZE  BLOCK  FLAGS                  PID  MOUNTED/HELD  COMMAND
/dev/nbd0  512MiB    512  flush,fua,trim,zeroes    -  /mnt          (left behind: its server is gone)
`.trim(),
    );
  });

  test.each([
    ["loop:8:1/77@0 block=512 rw", "loop:8:1/77@0 block=512 rw"],
    [undefined, "an unknown device"],
  ])("a device that waits for another server says which one: %p", (identity, said) => {
    const waits: NodeState = { ...DISK, pid: undefined, command: undefined, waiting: true, identity };
    expect(listTable([waits])).toEndWith(`  (waits for "tsbuse recover" of ${said})`);
  });

  test("a device that offers nothing, served by a process without a command line", () => {
    const bare: NodeState = { ...FREE, path: "/dev/nbd0", size: DISK.size, pid: 4711 };
    expect(listTable([bare]).split("\n")[1]).toBe("/dev/nbd0  512MiB    512  -      4711  -             -");
  });

  test("text of other processes does not reach the terminal as commands", () => {
    const hostile: NodeState = { ...DISK, command: "a\nb\u001b[2Jc", mounts: ["/mnt/x\ty"] };
    const table = listTable([hostile]);
    expect(table.split("\n")).toHaveLength(2);
    expect(table).toContain("a b [2Jc");
    expect(table).toContain("/mnt/x y");
    const waits: NodeState = { ...DISK, pid: undefined, waiting: true, identity: "a\u001b[2Jb" };
    expect(listTable([waits])).toEndWith("of a [2Jb)");
  });
});

test("the JSON has stable names, bytes, and null for what is not known", () => {
  const left: NodeState = { ...DISK, path: "/dev/nbd1", pid: undefined, command: undefined };
  const common = {
    ...ALL,
    size: 536_870_912,
    blockSize: 512,
    readOnly: false,
    rotational: false,
    waiting: false,
    identity: null,
    mounts: [],
    holders: [],
    partitions: [],
  };
  expect(JSON.parse(listJson([DISK, left]))).toEqual([
    { ...common, node: "/dev/nbd0", pid: 4711, command: COMMAND },
    { ...common, node: "/dev/nbd1", pid: null, command: null },
  ]);
});

test("the documentation names every field of the JSON", () => {
  const { stdout } = tsbuse("list", "--help");
  const [object = {}] = JSON.parse(listJson([DISK])) as readonly object[];
  for (const field of Object.keys(object)) expect(stdout).toMatch(new RegExp(`\\b${field}\\b`));
});

describe("as a command", () => {
  test("--json is an array", () => {
    const { status, stdout, stderr } = tsbuse("list", "--json");
    expect(JSON.parse(stdout)).toBeArray();
    expect(stderr).toBe("");
    expect(status).toBe(0);
  });

  test.skipIf(existsSync("/sys/block/nbd0"))("without the driver (needs a system that has none)", () => {
    const { status, stdout, stderr } = tsbuse("list");
    expect(stdout).toBe("");
    expect(stderr).toBe("tsbuse: nothing is attached: neither driver is loaded\n");
    expect(status).toBe(0);
    expect(tsbuse("list", "--json").stdout).toBe("[]\n");
  });
});
