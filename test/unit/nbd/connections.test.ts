/** Goal: the connections of a node begin and end together, and leave nothing behind, whichever threads serve them. */
import { afterEach, expect, test } from "bun:test";
import { Ramdisk } from "../../../devices/ramdisk.ts";
import { Dispatch } from "../../../src/dispatch.ts";
import { messageOf } from "../../../src/errors.ts";
import { close } from "../../../src/libc/file.ts";
import {
  receiveBytes,
  sendBytes,
  setSendBuffer,
  shutdown,
  streamSocketPair,
} from "../../../src/libc/socket.ts";
import { NodeConnections } from "../../../src/nbd/node/connections.ts";
import type { ConnectionEnd } from "../../../src/nbd/node/kernel-connection.ts";
import { errno } from "../../../src/uapi/errno.ts";
import { DISC, encode, encodeAll, READ, REPLY_BYTES, type Request, WRITE } from "../../support/golden.ts";
import { Shadow } from "../../support/shadow.ts";
import { ownUse } from "../../support/own-use.ts";
import { pattern } from "../../support/random.ts";
import { redirectWorkers } from "../../support/redirect-workers.ts";
import { until } from "../../support/shell.ts";

const BLOCK = 4096;
const WRITTEN = pattern(BLOCK, 7);
const write: Request = { command: WRITE, cookie: 1n, offset: BLOCK, payload: WRITTEN };
const read: Request = { command: READ, cookie: 2n, offset: BLOCK, length: BLOCK };

let device: Ramdisk | undefined;
let served: NodeConnections;
let kernels: readonly number[] = [];

function make(count: number): NodeConnections {
  const disk = new Ramdisk(2 ** 20);
  device = disk;
  const pairs = Array.from({ length: count }, streamSocketPair);
  kernels = pairs.map(([, theirs]) => theirs);
  const sockets = pairs.map(([ours]) => ours);
  served = new NodeConnections(sockets, new Dispatch(disk), {});
  return served;
}

async function end(): Promise<void> {
  if (kernels.length === 0) return;
  await served.close();
  for (const fd of kernels) close(fd);
  kernels = [];
  device?.close();
  device = undefined;
}

afterEach(end);

function send(index: number, request: Request): void {
  const bytes = encode(request);
  expect(sendBytes(kernels[index] ?? -1, bytes)).toBe(bytes.length);
}

/** The payload of a connection's answer. */
async function ask(index: number, request: Request): Promise<Uint8Array> {
  send(index, request);
  const reply = new Uint8Array(REPLY_BYTES + BLOCK);
  let length = 0;
  await until("there is an answer", () => {
    length = receiveBytes(kernels[index] ?? -1, reply);
    return length > 0;
  });
  expect(new DataView(reply.buffer).getUint32(4)).toBe(0);
  return reply.subarray(REPLY_BYTES, length);
}

/** What the kernel finds after the last answer of each: 0 for the end of the stream. */
function seen(): number[] {
  const rest = new Uint8Array(2 ** 20);
  return kernels.map((fd) => {
    let received = receiveBytes(fd, rest);
    while (received > 0) received = receiveBytes(fd, rest);
    return received;
  });
}

test.each([1, 2])("%d: they serve the same bytes, count together, and end when asked to", async (count) => {
  // The runtime opens its own files for the first ones.
  const first = make(count);
  await first.prepare();
  first.shutDown();
  expect((await first.serve()).ending).toBe("closed");
  await end();
  const before = ownUse().descriptors;
  const connections = make(count);
  let ending = 0;
  connections.onEnding = () => (ending += 1);
  await connections.prepare();
  const ended = connections.serve();
  await ask(0, write);
  expect(await ask(count - 1, read)).toEqual(WRITTEN);
  expect(connections.statistics).toEqual({ requests: 2, errors: 0, bytesRead: BLOCK, bytesWritten: BLOCK });
  for (let index = 0; index < count; index += 1) send(index, { command: DISC, cookie: 3n });
  expect(await ended).toEqual({ ending: "disconnect", fault: "", left: 0 });
  expect(ending).toBe(count);
  await end();
  await until("all is given back", () => ownUse().descriptors <= before);
});

const BREAKS: readonly (readonly [string, (fd: number) => void, ConnectionEnd])[] = [
  ["the kernel closes it", (fd: number) => void shutdown(fd), { ending: "closed", fault: "", left: 0 }],
  [
    "it breaks",
    (fd: number) => void sendBytes(fd, new Uint8Array(28)),
    { ending: "broken", fault: "a request began with 0x0, not with the magic number", left: 0 },
  ],
];

test.each(BREAKS)("one ends because %s: so do all", async (_, breakOff, expected) => {
  const connections = make(2);
  await connections.prepare();
  const ended = connections.serve();
  await ask(0, write);
  breakOff(kernels[1] ?? -1);
  expect(await ended).toEqual(expected);
  expect(seen()).toEqual([0, 0]);
});

test("a thread that fails ends them all", async () => {
  using _ = redirectWorkers("queue", "failing-queue");
  const connections = make(2);
  await connections.prepare();
  const ended = connections.serve().catch(messageOf);
  const writes = encodeAll(Array.from({ length: 1001 }, () => ({ ...write, payload: pattern(512) })));
  setSendBuffer(kernels[1] ?? -1, 4 * writes.length);
  expect(sendBytes(kernels[1] ?? -1, writes)).toBe(writes.length);
  expect(await ended).toBe("a queue's thread failed: the guard has failed");
  expect(seen()).toEqual([0, 0]);
});

test("a thread that dies while it gets what it needs is the start's failure", async () => {
  using _ = redirectWorkers("queue", "dying");
  expect(await make(2).prepare().catch(messageOf)).toBe("queue worker: it has ended by itself");
});

test("those that are left before they are served serve nothing", async () => {
  const connections = make(2);
  await connections.prepare();
  connections.leave();
  expect(await connections.serve()).toEqual({ ending: "stopped", fault: "", left: 0 });
});

test("told to stop it answers what it has begun, and leaves the rest and the stream to the kernel", async () => {
  const store = new Shadow(2 ** 20);
  const held = Promise.withResolvers<void>();
  store.hold = () => held.promise;
  const [ours, theirs] = streamSocketPair();
  kernels = [theirs];
  served = new NodeConnections([ours], new Dispatch(store), {});
  const asked: string[] = [];
  served.onEnding = () => asked.push("ending");
  const ended = served.serve();
  send(0, write);
  await until("the device has it", () => store.inFlight === 1);
  served.stop();
  await until("no more requests come", () => asked.length > 0);
  send(0, read);
  held.resolve();
  expect(await ended).toEqual({ ending: "stopped", fault: "", left: 0 });
  const reply = new Uint8Array(2 * REPLY_BYTES);
  expect(receiveBytes(theirs, reply)).toBe(REPLY_BYTES);
  expect(new DataView(reply.buffer).getBigUint64(8)).toBe(1n);
  expect(seen()).toEqual([-errno.EAGAIN]);
  expect(store.calls).toHaveLength(1);
});

test.each([1, 2])("%d: paused they take nothing, and go on where they stopped", async (count) => {
  const connections = make(count);
  await connections.prepare();
  const ended = connections.serve();
  await ask(0, write);
  connections.watchful = true;
  await connections.pause();
  for (let index = 0; index < count; index += 1) send(index, read);
  await Bun.sleep(0);
  expect(connections.statistics.requests).toBe(1);
  connections.resume();
  const reply = new Uint8Array(REPLY_BYTES + BLOCK);
  for (const fd of kernels) {
    await until("it is answered", () => receiveBytes(fd, reply) > 0);
    expect(reply.subarray(REPLY_BYTES)).toEqual(WRITTEN);
  }
  await connections.pause();
  connections.stop();
  expect(await ended).toEqual({ ending: "stopped", fault: "", left: 0 });
  expect(seen()).toEqual(kernels.map(() => -errno.EAGAIN));
});
