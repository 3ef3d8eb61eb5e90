/** Goal: an NBD node is had where one can be, and one that is cut off is let be from then on. */
import { afterAll, expect, mock, test } from "bun:test";
import { join } from "node:path";
import { Dispatch } from "../../../src/dispatch.ts";
import { messageOf, UserError } from "../../../src/errors.ts";
import { errno } from "../../../src/uapi/errno.ts";
import { userFailure } from "../../support/failure.ts";
import { Shadow } from "../../support/shadow.ts";

/** What a claim of each node returns. */
let nodes: Readonly<Record<string, number>> = {};
/** The workers in order, and what each was sent. */
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

/** What became of a node that netlink has attached. */
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

const SOURCES = join(import.meta.dir, "../../../src");
const file = { ...(await import("../../../src/libc/file.ts")) };
const stand: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  "kmod/ensure.ts": { ensureModule: () => Promise.resolve() },
  "nbd/node/nodes.ts": { nodeNames: () => Object.keys(nodes), attachedThread: () => process.pid },
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
};
for (const [name, part] of Object.entries(stand)) {
  const path = join(SOURCES, name);
  const real = { ...(await import(path)) };
  await mock.module(path, () => ({ ...real, ...part }));
  afterAll(() => mock.module(path, () => real));
}
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
