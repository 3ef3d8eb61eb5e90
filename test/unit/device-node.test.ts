/** Nodes, made where neither devtmpfs nor udev makes them. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { rmSync, statSync, writeFileSync } from "node:fs";
import { ensureNode } from "../../src/nodes/device-node.ts";
import { deviceNumbers } from "../../src/libc/sysfs.ts";
import { userError } from "../support/failure.ts";
import { asOrdinaryUser, CAP_MKNOD, hasCapability } from "../support/privileges.ts";
import { TemporaryDirectory } from "../support/temporary.ts";

let directory: TemporaryDirectory;
let node: string;
let attribute: string;

beforeEach(() => {
  directory = new TemporaryDirectory();
  node = directory.join("node");
  attribute = directory.join("dev");
  writeFileSync(attribute, "1:3\n");
});
afterEach(() => directory[Symbol.dispose]());

describe.skipIf(!hasCapability(CAP_MKNOD))("with CAP_MKNOD (skipped without)", () => {
  test.each(["block", "character"] as const)("a %s device is made once", (kind) => {
    expect([ensureNode(node, kind, attribute), ensureNode(node, kind, attribute)]).toEqual([true, false]);
    const stats = statSync(node);
    expect([stats.isBlockDevice(), stats.isCharacterDevice()]).toEqual([
      kind === "block",
      kind === "character",
    ]);
    expect([deviceNumbers(stats.rdev), stats.mode & 0o777]).toEqual([{ major: 1, minor: 3 }, 0o600]);
  });

  test("another device of that name is left alone", () => {
    ensureNode(node, "block", attribute);
    expect(userError(() => ensureNode(node, "character", attribute))).toBe(
      `${node} is not the character device 1:3: remove it, and run this again`,
    );
    writeFileSync(attribute, "1:5\n");
    expect(userError(() => ensureNode(node, "block", attribute))).toContain("is not the block device 1:5");
    expect(deviceNumbers(statSync(node).rdev)).toEqual({ major: 1, minor: 3 });
  });

  test("a directory that is not there is told of", () => {
    expect(userError(() => ensureNode(directory.join("no/node"), "block", attribute))).toContain(
      "does not exist and cannot be made (No such file or directory): run ",
    );
  });
});

test("a file of that name is left alone", () => {
  writeFileSync(node, "text");
  expect(userError(() => ensureNode(node, "character", attribute))).toContain("is not the character device");
});

test("a device that the kernel does not have is told of", () => {
  rmSync(attribute);
  expect(userError(() => ensureNode(node, "block", attribute))).toBe(
    `${node} is unavailable, the kernel has no such device: see "tsbuse doctor"`,
  );
});

test("who may not make it is told so", () => {
  // The directory of the test is its owner's alone.
  const number = "/sys/class/mem/null/dev";
  const message = asOrdinaryUser(() => userError(() => ensureNode("/dev/tsbuse-test", "block", number)));
  expect(message).toContain("cannot be made (");
});
