/** What we report about NBD nodes: who uses them, and what their flags say. */
import { describe, expect, test } from "bun:test";
import type { BlockDevice } from "../../src/device.ts";
import { Dispatch } from "../../src/dispatch.ts";
import { nodeName } from "../../src/nbd/node/driver.ts";
import { transmissionFlags } from "../../src/nbd/wire/transmission-flags.ts";
import { nodeIndex } from "../../src/nbd/node/nodes.ts";
import { mountsOf, type NodeState } from "../../src/nodes/node-state.ts";
import { findUse, useOf, whyBusy } from "../../src/nodes/node-use.ts";
import { userError } from "../support/failure.ts";
import { FREE } from "../support/node-state.ts";

describe("a node", () => {
  test("that nobody uses is not busy", () => {
    expect(whyBusy(FREE)).toBeUndefined();
  });

  test.each<[string, Partial<NodeState>, string]>([
    ["served", { pid: 42, command: "nbd-client host" }, 'is served by process 42, "nbd-client host": '],
    ["served by one without a command line", { pid: 42 }, "is served by process 42, another process: "],
    ["mounted", { mounts: ["/mnt/a", "/b"] }, "is mounted at /mnt/a: "],
    ["held", { holders: ["/dev/dm-0"] }, "is held by /dev/dm-0: "],
    ["attached", { attached: true }, "is attached, and what serves it cannot be seen from here: "],
    ["left", { attached: true, leftBehind: true }, "is still attached, though its server is gone: "],
    ["of a size", { size: 4096 }, "is still attached, though its server is gone: "],
    ["waiting", { waiting: true }, "waits for its server: "],
    [
      "all of it",
      { pid: 1, command: "x", mounts: ["/m"], holders: ["swap"], size: 512, attached: true },
      'is served by process 1, "x": ',
    ],
  ])("that is %s is busy, and says why", (_, more, cause) => {
    expect(whyBusy({ ...FREE, ...more })).toStartWith(`/dev/nbd3 ${cause}`);
  });

  test.each<[Partial<NodeState>, string | undefined, string | undefined]>([
    [{}, undefined, undefined],
    [{ pid: 42, command: "a server", attached: true }, undefined, undefined],
    [{ mounts: ["/mnt/a", "/b"], holders: ["swap"] }, "mounted at /mnt/a", "unmount it first"],
    [{ holders: ["swap"] }, "used as swap", 'run "swapoff" on /dev/nbd3 or its partition first'],
    [{ holders: ["/dev/md0", "swap"] }, "held by /dev/md0", "release it there first"],
  ])("of which is told %p is %s", (more, how, remedy) => {
    const use = useOf({ ...FREE, ...more });
    expect([use?.how, use?.remedy]).toEqual([how, remedy]);
  });

  test("that does not exist is used by nobody, and mounted nowhere", () => {
    expect(findUse("nbd9999")).toBeUndefined();
    expect(mountsOf("nbd9999")).toEqual([]);
  });

  test("has its number in its name, and its name in its path", () => {
    expect([nodeIndex("nbd0"), nodeIndex("nbd15")]).toEqual([0, 15]);
    expect([nodeName("/dev/nbd0"), nodeName("/dev/nbd127")]).toEqual(["nbd0", "nbd127"]);
  });

  test.each([
    "nbd0",
    "/dev/sda",
    "/dev/nbd",
    "/dev/nbdx",
    "/dev/nbd0/",
    "/dev/../dev/nbd0",
    "",
    "/dev/nbd0 ",
  ])("is not at %p", (target) => {
    expect(userError(() => nodeName(target))).toStartWith(`${target} is not an NBD node: give /dev/nbd0`);
  });

  test("is not one of its partitions", () => {
    const message = userError(() => nodeName("/dev/nbd7p1"));
    expect(message).toStartWith("/dev/nbd7p1 is a partition: ");
    expect(message).toEndWith("/dev/nbd7");
  });
});

const nothing = (): void => undefined;

describe("the flags that the driver is told", () => {
  // NBD_FLAG_* of the specification: bit 0 HAS_FLAGS, 1 READ_ONLY, 2 FLUSH, 3 FUA, 4 ROTATIONAL, 5 TRIM, 6 ZEROES.
  test.each<[string, Partial<BlockDevice>, number]>([
    ["read alone", {}, 0b0000011],
    ["write", { write: nothing }, 0b0000001],
    ["write and flush, and so FUA", { write: nothing, flush: nothing }, 0b0001101],
    ["write and trim", { write: nothing, trim: nothing }, 0b0100001],
    ["write and writeZeroes", { write: nothing, writeZeroes: nothing }, 0b1000001],
    ["read alone, of a disk with heads", { rotational: true }, 0b0010011],
    [
      "everything",
      { write: nothing, flush: nothing, trim: nothing, writeZeroes: nothing, rotational: true },
      0b1111101,
    ],
  ])("for %s", (_, more, flags) => {
    const device: BlockDevice = { size: 4096, read: nothing, ...more };
    expect(transmissionFlags(new Dispatch(device))).toBe(flags);
  });
});
