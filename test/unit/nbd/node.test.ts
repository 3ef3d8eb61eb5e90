/** Goal: a free NBD node is found if there is one, and a node that was cut off is left alone from then on. */
import { expect, test } from "bun:test";
import { Dispatch } from "../../../src/dispatch.ts";
import { messageOf, UserError } from "../../../src/errors.ts";
import { errno } from "../../../src/uapi/errno.ts";
import { OtherProcess } from "../../../src/libc/pidfd.ts";
import { receiveBytes, sendBytes } from "../../../src/libc/socket.ts";
import type { TakeOver, Transport } from "../../../src/transport.ts";
import { userFailure } from "../../support/failure.ts";
import { DISC, encode, READ, REPLY_BYTES, WRITE } from "../../support/golden.ts";
import { HeldDevice } from "../../support/held-device.ts";
import { pattern } from "../../support/random.ts";
import { until } from "../../support/shell.ts";
import { Shadow } from "../../support/shadow.ts";
import { standInForFile } from "../../support/stand-in.ts";

/** The result of claiming each node. */
let nodes: Readonly<Record<string, number>> = {};
/** The workers in order, and the messages sent to each. */
const sent: [string, unknown][] = [];
let started: (name: string) => void = () => undefined;

class RequestWorker {
  constructor(readonly name: string) {}
  next(): Promise<unknown> {
    started(this.name);
    return Promise.resolve({ kind: "listening" });
  }
  send(request: unknown): void {
    sent.push([this.name, request]);
  }
  end(): Promise<void> {
    return Promise.resolve();
  }
}

/** The end of a node that netlink attached. */
const fate: string[] = [];
let kernel = -1;
class NbdFamily {
  connect(_: unknown, [socket = -1]: readonly number[]): void {
    kernel = file.dup2(socket, file.open("/dev/null", 0));
    fate.push("connect");
  }
  disconnect(): void {
    fate.push("disconnect");
  }
  close(): void {
    fate.push("close");
  }
}

const file = { ...(await import("../../../src/libc/file.ts")) };
await standInForFile({
  "kmod/ensure.ts": { ensureModule: () => Promise.resolve() },
  "nbd/node/nodes.ts": {
    nodeNames: () => Object.keys(nodes),
    attachedThread: () => process.pid,
    nbdNodeState: () => ({ size: 2 ** 20, blockSize: 512, readOnly: false }),
  },
  "nbd/node/backend.ts": { backendText: () => "somebody's" },
  "nbd/node/netlink.ts": { NbdFamily },
  "nbd/node/seat.ts": {
    takeSeat: () => file.open("/dev/null", 0),
    leaveSeat: (_: string, fd: number, isLast: boolean) => fate.push(`seat ${file.close(fd)} ${isLast}`),
  },
  "nodes/device-node.ts": { ensureNode: () => false },
  "nodes/claim.ts": { claim: (path: string) => nodes[path.slice("/dev/".length)] },
  "libc/file.ts": { open: () => file.open("/dev/null", 0) },
  "libc/ioctl.ts": { ioctl: () => 0 },
  "serving/workers.ts": { RequestWorker },
});
const { takeNode } = await import("../../../src/nbd/node/driver.ts");
const { attachNode } = await import("../../../src/nbd/node/attach-node.ts");

test.each([-errno.ENOENT, -errno.ENXIO])("a node that opens with %d is passed over", async (odd) => {
  nodes = { nbd0: odd, nbd1: file.open("/dev/null", 0) };
  const taking = { take: (name: string) => name };
  expect(await takeNode("nbd", taking)).toBe("nbd1");
  nodes = { nbd0: odd };
  expect(await userFailure(takeNode("nbd", taking))).toStartWith("open /dev/nbd0: No such ");
});

test.each([
  ["doIt", []],
  ["node", ["doIt"]],
])("one that is cut off while its thread starts gives it nothing to do: %s", async (worker, told) => {
  const reason = new UserError("stopped");
  nodes = { nbd0: file.open("/dev/null", 0) };
  const attachment = await attachNode("nbd", new Dispatch(new Shadow(2 ** 20)), { attach: "ioctl" });
  sent.length = 0;
  started = (name) => name === worker && attachment.cut(reason);
  const end = { startClock: () => undefined, flush: () => Promise.resolve() };
  await expect(attachment.serve(() => undefined, end)).rejects.toBe(reason);
  expect(sent.map(([name]) => name)).toEqual(told);
});

test.each([
  ["left", undefined],
  ["cut off meanwhile", "stopped"],
])("a node that is %s waits for its next server", async (_, failure) => {
  nodes = { nbd7: 0 };
  fate.length = 0;
  started = () => undefined;
  const store = Object.assign(new Shadow(2 ** 20), { identity: "store" });
  const attachment = await attachNode("nbd", new Dispatch(store), { recover: true });
  const flush = (): Promise<void> => {
    fate.push("flush");
    return Promise.resolve();
  };
  const ready = Promise.withResolvers<void>();
  const serving = attachment.serve(ready.resolve, { startClock: () => undefined, flush });
  await ready.promise;
  attachment.leave();
  attachment.detach();
  if (failure !== undefined) attachment.cut(new UserError(failure));
  expect(await serving.catch(messageOf)).toBe(failure);
  expect(fate).toEqual(["connect", "flush", "seat 0 false", "close"]);
  file.close(kernel);
});

const BLOCK = 512;
const END = {
  startClock: () => undefined,
  flush: async () => void fate.push("flush"),
};

function ask(command: number, payload?: Uint8Array): void {
  const bytes = encode({ command, cookie: 1n, offset: 0, length: BLOCK, ...(payload && { payload }) });
  expect(sendBytes(kernel, bytes)).toBe(bytes.length);
}

/** The next answer. */
async function answer(): Promise<Uint8Array> {
  const bytes = new Uint8Array(REPLY_BYTES + BLOCK);
  let length = 0;
  await until("there is an answer", () => (length = receiveBytes(kernel, bytes)) > 0);
  return bytes.subarray(REPLY_BYTES, length);
}

/** A server of a node, and all that another process does to take it over, which can do some of it otherwise. */
async function servedNode(store: Shadow, otherwise: Partial<TakeOver> = {}) {
  nodes = { nbd7: 0 };
  fate.length = 0;
  started = () => undefined;
  const first = await attachNode("nbd", new Dispatch(store), { canBeShared: true });
  const ready = Promise.withResolvers<void>();
  const over = first.serve(ready.resolve, END);
  await ready.promise;
  return { first, over, handover: first.handover, next: await nextOf(first, store, otherwise) };
}

function nextOf({ handover }: Transport, store: Shadow, otherwise: Partial<TakeOver>) {
  const takeOver: TakeOver = {
    hasData: true,
    identity: undefined,
    descriptor: (name) => {
      const fd = handover?.fds[name];
      return fd === undefined ? -1 : new OtherProcess(process.pid).descriptor(fd);
    },
    release: async () => (await handover?.letGo()) === "stays",
    done: async () => handover?.handedOn(),
    ...otherwise,
  };
  return attachNode("/dev/nbd7", new Dispatch(store), { takeOver, canBeShared: true });
}

test("one that is handed on goes on with what is in its socket, and the kernel is told nothing", async () => {
  const { over, next } = await servedNode(new Shadow(2 ** 20));
  ask(WRITE, pattern(BLOCK, 5));
  await answer();
  const ready = Promise.withResolvers<void>();
  const nextOver = next.serve(ready.resolve, END);
  await over;
  ask(READ);
  expect(await answer()).toEqual(pattern(BLOCK, 5));
  await ready.promise;
  expect(fate).toEqual(["connect", "seat 0 false", "close"]);
  ask(DISC);
  await nextOver;
  expect(fate.slice(3)).toEqual(["flush", "disconnect", "seat 0 true", "close"]);
  file.close(kernel);
});

test.each(["attached it", "took it over"])(
  "one that %s, and is cut off while the next one takes the node, leaves it to that",
  async (how) => {
    const store = new Shadow(2 ** 20);
    const cut = (): void => server.cut(new UserError("enough"));
    const { first, over, next } = await servedNode(
      store,
      how === "attached it" ? { done: async () => cut() } : {},
    );
    let [server, end, last] = [first, over, next];
    if (how === "took it over") {
      [server, end] = [next, next.serve(() => undefined, END)];
      await over;
      last = await nextOf(next, store, { done: async () => cut() });
    }
    const lastOver = last.serve(() => undefined, END);
    expect(await userFailure(end)).toBe("enough");
    ask(WRITE, pattern(BLOCK, 5));
    await answer();
    expect(fate).not.toContain("disconnect");
    ask(DISC);
    await lastOver;
    file.close(kernel);
  },
);

test.each<[string, Partial<TakeOver>, string]>([
  ["has not let go", { release: () => Promise.reject(new UserError("not now")) }, "not now"],
  ["takes it back", { done: () => Promise.reject(new UserError("no answer")) }, "no answer"],
  ["was killed", { release: () => Promise.resolve(false) }, "was killed before it had let go"],
])("one whose process %s is let be by the next one", async (_, otherwise, line) => {
  const { first, over, handover, next } = await servedNode(new Shadow(2 ** 20), otherwise);
  expect(await userFailure(next.serve(() => undefined, END))).toContain(line);
  handover?.takeBack();
  ask(WRITE, pattern(BLOCK, 5));
  await answer();
  expect(fate).toEqual(["connect", "seat 0 false", "close"]);
  // It is told to end while another one tries again.
  await handover?.letGo();
  sent.length = 0;
  first.detach();
  expect(sent).toEqual([]);
  handover?.takeBack();
  expect(sent).toMatchObject([["node", { task: "detach" }]]);
  ask(DISC);
  await over;
  file.close(kernel);
});

test("one whose process has no seat is not taken over: it would look as if it were left behind", async () => {
  const missing = new Set(["seat", "socket1"]);
  const takeOver: TakeOver = {
    hasData: true,
    identity: undefined,
    descriptor: (name) => (missing.has(name) ? -1 : file.open("/dev/null", 0)),
    release: () => Promise.resolve(true),
    done: () => Promise.resolve(),
  };
  const why = await userFailure(attachNode("/dev/nbd7", new Dispatch(new Shadow(2 ** 20)), { takeOver }));
  expect(why).toStartWith("/dev/nbd7 cannot be handed over: its process found no place for /run/tsbuse/nbd7");
});

test("a device that does not answer is not let go of, and goes on once it does", async () => {
  const store = new HeldDevice(2 ** 20);
  const { over, handover, next } = await servedNode(store);
  ask(READ);
  await until("the device has it", () => store.names.length === 1);
  const letGo = handover?.letGo().catch(messageOf);
  await expect(handover?.letGo()).rejects.toThrow("is being taken over");
  ask(READ);
  handover?.takeBack();
  await until("the device has both", () => store.names.length === 2);
  expect(await letGo).toBe("/dev/nbd7 was taken back before it was let go of");
  store.settleDown();
  await answer();
  const nextOver = next.serve(() => undefined, END);
  await over;
  ask(DISC);
  await nextOver;
  file.close(kernel);
});

test("what keeps its data elsewhere and waits for nobody is not handed on: the next one might not open it", async () => {
  nodes = { nbd7: 0 };
  const store = Object.assign(new Shadow(2 ** 20), { identity: "store" });
  for (const recover of [false, true]) {
    const attachment = await attachNode("nbd", new Dispatch(store), { recover });
    expect(attachment.handover !== undefined).toBe(recover);
    attachment.cut(new UserError("enough"));
    await attachment.serve(() => undefined, END).catch(() => undefined);
    file.close(kernel);
  }
});
