/** The cost of the request loop, counted rather than timed: system calls for each request, and bytes copied. */
import { expect, spyOn, test } from "bun:test";
import { Ramdisk } from "../../../devices/ramdisk.ts";
import { Dispatch } from "../../../src/dispatch.ts";
import { pointer } from "../../../src/libc/address.ts";
import { close } from "../../../src/libc/file.ts";
import { libc } from "../../../src/libc/library.ts";
import { Memory } from "../../../src/libc/memory.ts";
import { setSendBuffer, streamSocketPair } from "../../../src/libc/socket.ts";
import { Connection } from "../../../src/nbd/connection/connection.ts";
import { Service } from "../../../src/nbd/connection/service.ts";
import { encodeAll, READ, type Request, WRITE } from "../../support/golden.ts";
import { setNonBlocking } from "../../support/peer.ts";
import { pattern } from "../../support/random.ts";
import { RawClient } from "../../support/raw-client.ts";
import { RunningServer, type Way } from "../../support/running-server.ts";

const SIZE = 2 ** 20;
const BLOCK = 4096;
const DEPTH = 32;
const BATCHES = 100;
/** <sys/socket.h> */
const MSG_WAITALL = 0x100;
const HEADER_BYTES = 28;
const REPLY_BYTES = 16;

const reads = Array.from({ length: DEPTH }, (_, index): Request => ({
  command: READ,
  cookie: BigInt(index),
  offset: BLOCK * ((index * 37) % 256),
  length: BLOCK,
}));
const writes = reads.map(({ cookie, offset }): Request => ({
  command: WRITE,
  cookie,
  offset: offset ?? 0,
  payload: pattern(BLOCK),
}));

/** The calls of the C library that wait for, bring or take bytes: each is one system call. */
const CALLS = ["poll", "recv", "recvmsg", "sendto", "sendmsg", "io_uring_enter", "read"] as const;

const NO_CALLS = { poll: 0, recv: 0, recvmsg: 0, sendto: 0, sendmsg: 0, io_uring_enter: 0, read: 0 };

interface Counts {
  readonly calls: Readonly<Record<(typeof CALLS)[number], number>>;
  /** Calls of recv that brought bytes. */
  readonly received: number;
  /** Bytes copied by the C library and by typed arrays. */
  readonly copied: number;
}

/** Counts what `work` does. */
async function count(work: () => unknown): Promise<Counts> {
  const spies = CALLS.map((name) => spyOn(libc, name));
  const memcpy = spyOn(libc, "memcpy");
  const set = spyOn(Uint8Array.prototype, "set");
  const copyWithin = spyOn(Uint8Array.prototype, "copyWithin");
  try {
    await work();
    const entries = CALLS.map((name, index) => [name, spies[index]?.mock.calls.length ?? 0] as const);
    const calls = { ...NO_CALLS, ...Object.fromEntries(entries) };
    const received = spies[CALLS.indexOf("recv")]?.mock.results.filter(
      ({ value }) => Number(value) > 0,
    ).length;
    let copied = 0;
    for (const [, , length] of memcpy.mock.calls) copied += Number(length);
    for (const [source] of set.mock.calls) copied += source.length;
    for (const [, start, end] of copyWithin.mock.calls) copied += (end ?? 0) - start;
    return { calls, received: received ?? 0, copied };
  } finally {
    for (const spy of [...spies, memcpy, set, copyWithin]) spy.mockRestore();
  }
}

/** Batches of requests to a RAM disk, and their replies, on a socket pair. */
async function exchange(requests: readonly Request[], replyBytes: number): Promise<Counts> {
  const [ours, theirs] = streamSocketPair();
  for (const fd of [ours, theirs]) setSendBuffer(fd, SIZE);
  setNonBlocking(ours);
  const device = new Ramdisk(SIZE);
  const connection = new Connection(ours, new Service(new Dispatch(device), {}, SIZE));
  const memory = new Memory(SIZE);
  const bytes = encodeAll(requests);
  try {
    // The test's own end calls by other names, which are not counted.
    const { sendto, recv } = libc;
    return await count(() => {
      for (let batch = 0; batch < BATCHES; batch += 1) {
        expect(Number(sendto(theirs, bytes, bytes.length, 0, null, 0))).toBe(bytes.length);
        // On a busy machine a turn of the usual length may end before all is done.
        expect(connection.run(Infinity)).toBe("turn");
        expect(connection.waitsFor).toBe("input");
        const received = recv(theirs, pointer(memory.address), replyBytes, MSG_WAITALL);
        expect(Number(received)).toBe(replyBytes);
      }
      expect(connection.requests).toBe(BATCHES * DEPTH);
    });
  } finally {
    close(ours);
    close(theirs);
    connection.close();
    device.close();
    memory.close();
  }
}

test("32 reads: one receive and one send; nothing is copied", async () => {
  const { calls, copied } = await exchange(reads, DEPTH * (REPLY_BYTES + BLOCK));
  // A receive that does not fill the buffer got everything, so no other follows.
  expect(calls).toEqual({ ...NO_CALLS, recv: BATCHES, sendmsg: BATCHES });
  expect(copied).toBe(0);
});

test("32 writes that have come in: two receives and two sends; no byte is copied twice", async () => {
  const { calls, copied } = await exchange(writes, DEPTH * REPLY_BYTES);
  // 128 KiB are received at once: the rest of the payload that is cut off there goes to its place.
  expect(calls.sendmsg).toBe(2 * BATCHES);
  expect(calls.recv + calls.recvmsg).toBe(2 * BATCHES);
  expect(copied).toBeGreaterThan(BATCHES * BLOCK);
  expect(copied).toBeLessThanOrEqual(BATCHES * DEPTH * (BLOCK + HEADER_BYTES));
});

/**
 * TCP may take the replies to a batch in two pieces, and a turn that takes long on a busy machine ends before its last
 * receive; most often neither happens. What happened to each batch would be twice as many.
 */
const NOW_AND_THEN = 1.5;

/** What a server calls for 32 reads at a time, of one client. */
async function serve(way: Way): Promise<Counts> {
  await using running = await RunningServer.start(way, new Ramdisk(SIZE), { busyPollMs: 0 });
  using client = await RawClient.transmitting(running.uri);
  const counts = await count(async () => {
    for (let batch = 1; batch <= BATCHES; batch += 1) {
      client.send(encodeAll(reads));
      await client.size(batch * DEPTH * (REPLY_BYTES + BLOCK));
    }
  });
  expect(running.server.requests).toBe(BATCHES * DEPTH);
  return counts;
}

test("a server with a thread of its own: for 32 reads of one client a receive and a send", async () => {
  const { calls, received } = await serve("blocking");
  const { recv, sendmsg, poll, ...others } = calls;
  expect(received).toBeLessThanOrEqual(BATCHES + 1);
  expect(sendmsg).toBeGreaterThanOrEqual(BATCHES);
  expect(sendmsg).toBeLessThanOrEqual(BATCHES * NOW_AND_THEN);
  expect(others).toEqual({ recvmsg: 0, sendto: 0, io_uring_enter: 0, read: 0 });
  // The client is on this thread, and has it when a turn was in vain: after a receive and a poll that wait.
  expect(recv).toBeLessThanOrEqual(2 * poll + 2);
}, 30_000);

test("a server beside the event loop: a receive, a send and one call to wait for more", async () => {
  const { calls, received } = await serve("by a ring");
  const { recv, sendmsg, io_uring_enter, ...others } = calls;
  expect(sendmsg).toBeGreaterThanOrEqual(BATCHES);
  expect(sendmsg).toBeLessThanOrEqual(BATCHES * NOW_AND_THEN);
  // The last turn of the handshake may come on top.
  expect(received).toBeLessThanOrEqual(BATCHES + 1);
  expect(recv).toBeLessThanOrEqual(BATCHES * NOW_AND_THEN + 1);
  expect(others).toEqual({ poll: 0, recvmsg: 0, sendto: 0, read: 0 });
  // The ring is entered to watch the socket again, for input and now and then for output.
  expect(io_uring_enter).toBeLessThanOrEqual(BATCHES * NOW_AND_THEN + 1);
}, 30_000);
