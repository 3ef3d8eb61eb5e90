/** What `tsbuse list` prints. */
import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { listJson, listTable } from "../../../../src/cli/commands/list.ts";
import type { NodeState } from "../../../../src/nodes/node-state.ts";
import { tsbuse } from "../tsbuse.ts";

const DISK: NodeState = {
  name: "nbd0",
  path: "/dev/nbd0",
  size: 512 * 2 ** 20,
  blockSize: 512,
  readOnly: false,
  rotational: false,
  flush: true,
  fua: true,
  trim: true,
  writeZeroes: true,
  attached: true,
  waiting: false,
  pid: 4711,
  command: "tsbuse loop disk.img /dev/nbd0",
  mounts: [],
  holders: [],
  partitions: [],
};

describe("the table", () => {
  test("is aligned, the command last and whole", () => {
    const mounted: NodeState = {
      ...DISK,
      name: "nbd12",
      path: "/dev/nbd12",
      size: 1_610_612_736,
      blockSize: 4096,
      readOnly: true,
      rotational: true,
      flush: false,
      fua: false,
      trim: false,
      writeZeroes: false,
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
    const left: NodeState = { ...DISK, pid: undefined, command: undefined, mounts: ["/mnt"] };
    expect(listTable([left])).toBe(
      `
NODE         SIZE  BLOCK  FLAGS                  PID  MOUNTED/HELD  COMMAND
/dev/nbd0  512MiB    512  flush,fua,trim,zeroes    -  /mnt          (left behind: no server is to be seen)
`.trim(),
    );
  });

  test("a device that offers nothing, served by a process without a command line", () => {
    const bare: NodeState = {
      ...DISK,
      flush: false,
      fua: false,
      trim: false,
      writeZeroes: false,
      command: undefined,
    };
    expect(listTable([bare]).split("\n")[1]).toBe("/dev/nbd0  512MiB    512  -      4711  -             -");
  });

  test("text of other processes does not reach the terminal as commands", () => {
    const hostile: NodeState = { ...DISK, command: "a\nb\u001b[2Jc", mounts: ["/mnt/x\ty"] };
    const table = listTable([hostile]);
    expect(table.split("\n")).toHaveLength(2);
    expect(table).toContain("a b [2Jc");
    expect(table).toContain("/mnt/x y");
  });
});

test("the JSON has stable names, bytes, and null for what is not known", () => {
  expect(
    JSON.parse(listJson([DISK, { ...DISK, path: "/dev/nbd1", pid: undefined, command: undefined }])),
  ).toEqual([
    {
      node: "/dev/nbd0",
      size: 536_870_912,
      blockSize: 512,
      readOnly: false,
      rotational: false,
      flush: true,
      fua: true,
      trim: true,
      writeZeroes: true,
      pid: 4711,
      command: "tsbuse loop disk.img /dev/nbd0",
      waiting: false,
      mounts: [],
      holders: [],
      partitions: [],
    },
    {
      node: "/dev/nbd1",
      size: 536_870_912,
      blockSize: 512,
      readOnly: false,
      rotational: false,
      flush: true,
      fua: true,
      trim: true,
      writeZeroes: true,
      pid: null,
      command: null,
      waiting: false,
      mounts: [],
      holders: [],
      partitions: [],
    },
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
