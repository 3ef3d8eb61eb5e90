/**
 * The synchronous path allocates nothing per request: a million requests go through a real socket, and the number of
 * objects on the heap is the same before and after, with no collection in between.
 */
import { expect, test } from "bun:test";
import type { BlockDevice } from "../../../src/device.ts";
import { Dispatch } from "../../../src/dispatch.ts";
import { pointer } from "../../../src/libc/address.ts";
import { unwrap } from "../../../src/libc/errno.ts";
import { close } from "../../../src/libc/file.ts";
import { libc } from "../../../src/libc/library.ts";
import { Memory } from "../../../src/libc/memory.ts";
import { setReceiveTimeout, setSendBuffer, streamSocketPair } from "../../../src/libc/socket.ts";
import { Connection } from "../../../src/nbd/connection/connection.ts";
import { Service } from "../../../src/nbd/connection/service.ts";
import { RingPoller } from "../../../src/nbd/wait/ring-poller.ts";
import { POLLIN } from "../../../src/uapi/poll.ts";
import { type Allocations, countAllocations } from "../../support/allocation.ts";
import { Plain, RamdiskWithFlush, Wasteful } from "../../support/frugal-devices.ts";
import { encodeAll, FLUSH, FUA, READ, type Request, TRIM, WRITE } from "../../support/golden.ts";
import { setNonBlocking } from "../../support/peer.ts";
import { pattern } from "../../support/random.ts";

const SIZE = 2 ** 20;
const BLOCK = 4096;
const REQUESTS = 1_000_000;
const WARM_UP = 300_000;
/** What the engine makes for itself meanwhile: code blocks, structures. An object per request would be a million. */
const OBJECTS_MAX = 2000;
const TIMEOUT_MS = 60_000;
/** How long the peer waits for replies that should be there. */
const DEADLINE_MS = 1000;
/** How often the kernel is asked for news that should be there. */
const TRIES = 1000;
/** <sys/socket.h> */
const MSG_WAITALL = 0x100;

/** 4 KiB writes and reads in turn, with a flush and a trim: more than one receive, so that payloads are cut. */
const PAIRS = 36;
const BATCH: readonly Request[] = [
  ...Array.from({ length: PAIRS }, (_, index): Request[] => [
    {
      command: WRITE,
      flags: FUA * (index % 2),
      cookie: BigInt(index),
      offset: at(index),
      payload: pattern(BLOCK),
    },
    { command: READ, cookie: BigInt(PAIRS + index), offset: at(index + 7), length: BLOCK },
  ]).flat(),
  { command: FLUSH, cookie: 1001n },
  { command: TRIM, cookie: 1002n, offset: 0, length: BLOCK },
];
const REPLY_BYTES = BATCH.length * 16 + PAIRS * BLOCK;
/** Each has a header of 20 bytes, those with data 8 more. */
const STRUCTURED_REPLY_BYTES = BATCH.length * 20 + PAIRS * (8 + BLOCK);

function at(index: number): number {
  return BLOCK * ((index * 37) % (SIZE / BLOCK));
}

/** Waits for requests that are there, as a thread does that is the connection's, or beside the event loop. */
type Wait = (connection: Connection, fd: number, poller: RingPoller) => void;

const blocking: Wait = (connection) => {
  if (connection.await(true) !== "news") throw new Error("there was nothing to receive");
};

const evented: Wait = (_, fd, poller) => {
  poller.watch(2, fd, POLLIN);
  poller.submit();
  let key = poller.take();
  for (let tries = 0; key < 0 && tries < TRIES; tries += 1) {
    poller.submit();
    key = poller.take();
  }
  if (key !== 2) throw new Error("there was no news");
};

/** What a million requests allocate. */
async function measure(device: BlockDevice, structured = false, wait = blocking): Promise<Allocations> {
  const [ours, theirs] = streamSocketPair();
  for (const fd of [ours, theirs]) setSendBuffer(fd, SIZE);
  setNonBlocking(ours);
  unwrap(setReceiveTimeout(theirs, DEADLINE_MS), "SO_RCVTIMEO");
  const service = new Service(new Dispatch(device), {}, 64 * SIZE);
  const connection = new Connection(ours, service, { structured });
  const poller = new RingPoller(() => undefined);
  const replyBytes = structured ? STRUCTURED_REPLY_BYTES : REPLY_BYTES;
  const memory = new Memory(2 * SIZE);
  const requests = encodeAll(BATCH);
  memory.write(requests, 0);

  const serve = (count: number): void => {
    for (let done = 0; done < count; done += BATCH.length) {
      const sent = libc.sendto(theirs, pointer(memory.address), requests.length, 0, null, 0);
      if (Number(sent) !== requests.length)
        throw new Error(`${sent} of ${requests.length} bytes fit the socket`);
      const target = connection.requests + BATCH.length;
      while (connection.requests < target) {
        wait(connection, ours, poller);
        if (connection.run() !== "turn") throw new Error(connection.fault);
      }
      const received = libc.recv(theirs, pointer(memory.address + SIZE), replyBytes, MSG_WAITALL);
      if (Number(received) !== replyBytes) throw new Error(`${received} of ${replyBytes} bytes came back`);
    }
  };
  connection.run();
  try {
    serve(WARM_UP);
    const allocations = await countAllocations(() => serve(REQUESTS));
    expect(connection.requests).toBeGreaterThanOrEqual(WARM_UP + REQUESTS);
    return allocations;
  } finally {
    close(ours);
    close(theirs);
    connection.close();
    device.close?.();
    memory.close();
    await poller.close();
  }
}

test.each<[string, () => BlockDevice, boolean, Wait]>([
  ["plain device", () => new Plain(SIZE), false, blocking],
  ["memory device", () => new RamdiskWithFlush(SIZE), false, blocking],
  ["plain device beside the event loop", () => new Plain(SIZE), true, evented],
  ["memory device beside the event loop", () => new RamdiskWithFlush(SIZE), true, evented],
])(
  "a million requests to a %s leave the heap as it was",
  async (_, make, structured, wait) => {
    const { objects, types, collected } = await measure(make(), structured, wait);
    expect(collected).toBe(false);
    if (objects > OBJECTS_MAX) expect(types).toBe("no objects");
    expect(objects).toBeLessThan(OBJECTS_MAX);
  },
  TIMEOUT_MS,
);

test(
  "the measure sees a device that allocates one object per read",
  async () => {
    const { objects, collected } = await measure(new Wasteful(SIZE));
    expect(collected || objects > REQUESTS / 3).toBe(true);
  },
  TIMEOUT_MS,
);
