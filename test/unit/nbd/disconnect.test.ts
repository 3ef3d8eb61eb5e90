/** Goal: a node that changes hands while it is examined is neither detached nor changed. */
import { beforeEach, expect, test } from "bun:test";
import type { NodeState } from "../../../src/nodes/node-state.ts";
import { NBD_CLEAR_SOCK, NBD_DISCONNECT } from "../../../src/uapi/nbd.ts";
import { FREE } from "../../support/node-state.ts";
import { standInForFile } from "../../support/stand-in.ts";

const NODE: NodeState = { ...FREE, name: "nbd0", path: "/dev/nbd0", size: 2 ** 20 };
const WAITING: NodeState = { ...NODE, waiting: true };
const LEFT: NodeState = { ...NODE, leftBehind: true };
const SERVED: NodeState = { ...NODE, attached: true, pid: 4711 };

/** The states of the node found one after another; the last one repeats. */
let states: NodeState[] = [];
const look = (): NodeState => (states.length > 1 ? states.shift() : states[0]) ?? FREE;
/** The thread that attached it, for each query. */
let threads: number[] = [];
/** /sys/block/nbd0/size. */
let sectors = 0;
const did: string[] = [];

class NbdFamily implements Disposable {
  disconnect(): void {
    did.push("taken away");
  }
  resize(): void {
    did.push("resized");
  }
  [Symbol.dispose](): void {
    did.push("closed");
  }
}

const IOCTLS: Readonly<Record<number, string>> = {
  [NBD_DISCONNECT]: "disconnect",
  [NBD_CLEAR_SOCK]: "clear",
};
await standInForFile({
  "libc/file.ts": { open: () => 99, close: () => 0 },
  "libc/sysfs.ts": { readNumber: () => sectors },
  "libc/ioctl.ts": { ioctl: (_: number, request: number) => did.push(IOCTLS[request] ?? "?") && 0 },
  "nbd/node/backend.ts": {
    backendOf: () => ({ kind: "process", start: 1 }),
    backendText: () => "tsbuse pid=1 start=1",
  },
  "nbd/node/queue-attributes.ts": {
    resetRequestTimer: () => undefined,
    setQueueAttributes: () => void did.push("attributes"),
  },
  "nbd/node/netlink.ts": { NbdFamily },
  "nbd/node/nodes.ts": {
    attachedThread: () => (threads.length > 1 ? threads.shift() : threads[0]),
    nbdNodes: () => [look()],
    nbdNodeState: look,
    withLeftBehind: (state: NodeState) => state,
  },
  "nodes/claim.ts": { claimUnused: () => Promise.resolve(99) },
  "nodes/privileges.ts": { isPrivileged: () => true },
  "nodes/write-back.ts": { writeBack: () => did.push("write back") && 0 },
});
const { disconnectNbd } = await import("../../../src/nbd/node/disconnect.ts");
const { clearLeftBehind } = await import("../../../src/nbd/node/left-behind.ts");
const { tellKernel } = await import("../../../src/nbd/node/untold.ts");
const { NbdFamily: Family } = await import("../../../src/nbd/node/netlink.ts");

beforeEach(() => {
  did.length = 0;
  threads = [1];
});

test.each<[string, NodeState[], string[]]>([
  ["waits", [WAITING, WAITING, FREE], ["taken away", "closed"]],
  ["has got a server", [WAITING, SERVED, FREE], ["write back", "disconnect"]],
])("disconnect of one that %s", async (_, found, expected) => {
  states = found;
  await disconnectNbd("nbd0", false);
  expect(did).toEqual(expected);
});

test.each<[string, number[], string[]]>([
  ["is left behind", [1], ["taken away", "closed"]],
  ["has been attached anew", [1, 2], []],
])("disconnect --force of one that %s", async (_, found, expected) => {
  states = [LEFT, FREE];
  threads = found;
  await disconnectNbd("nbd0", true);
  expect(did).toEqual(expected);
});

test.each<[string, number[], string[]]>([
  ["is left behind", [1], ["taken away"]],
  ["has been attached anew", [1, 2], []],
])("a start that finds one that %s", (_, found, expected) => {
  states = [LEFT];
  threads = found;
  clearLeftBehind("nbd0", new Family());
  expect(did).toEqual(expected);
});

const SHAPE = { size: 2 ** 20, blockSize: 512, flags: 0, timeout: 0, connections: 1 };
const MADE = { thread: 1, backend: "tsbuse pid=1 start=1" };

const OTHERS = "somebody else has disconnected it";
const TOLD = ["attributes", "resized", "closed"];

test.each<[string, Partial<typeof MADE>, number, string | undefined, string[]]>([
  ["is still the one", {}, 2048, undefined, TOLD],
  ["another process has attached since", { thread: 2 }, 2048, OTHERS, []],
  ["is of another device", { backend: "tsbuse recover x" }, 2048, OTHERS, []],
  [
    "knows no other size",
    {},
    0,
    "the driver of this kernel takes no size by netlink: give --attach ioctl",
    TOLD,
  ],
])("the size is told of a node that %s", (_, made, found, failure, expected) => {
  sectors = found;
  const shape = { ...SHAPE, requestBytes: undefined, requestTimer: "usual" } as const;
  expect(tellKernel("nbd0", { shape, ...MADE, ...made }).failure).toBe(failure);
  expect(did).toEqual(expected);
});
