/** A connection allocates nothing per request, with each way of waiting. The requests go through a real socket. */
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
import { describeAllocations, DEVICE_BYTES as SIZE } from "../../support/allocation.ts";
import { encodeAll, FLUSH, FUA, READ, type Request, TRIM, WRITE } from "../../support/golden.ts";
import { setNonBlocking } from "../../support/peer.ts";
import { pattern } from "../../support/random.ts";

const BLOCK = 4096;
/** How long to wait for replies that should be there. */
const DEADLINE_MS = 10_000;
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

/** Waits for requests that are there already, on a thread of the connection or beside the event loop. */
type Wait = (connection: Connection, fd: number, poller: RingPoller) => void;

const blocking: Wait = (connection) => {
  if (connection.await(true) !== "news") throw new Error("there was nothing to receive");
};

const evented: Wait = (_, fd, poller) => {
  poller.watch(2, fd, POLLIN);
  poller.submit();
  let key = poller.take();
  for (const deadline = performance.now() + DEADLINE_MS; key < 0 && performance.now() < deadline;) {
    poller.submit();
    key = poller.take();
  }
  if (key !== 2) throw new Error("there was no news");
};

const WAYS: readonly (readonly [string, boolean, Wait])[] = [
  ["a thread of its own", false, blocking],
  ["beside the event loop, with structured replies", true, evented],
];

for (const [name, structured, wait] of WAYS) {
  describeAllocations(name, (device) => {
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
    connection.run();
    return {
      answered: () => connection.requests,
      serve(count) {
        for (let done = 0; done < count; done += BATCH.length) {
          const sent = libc.sendto(theirs, pointer(memory.address), requests.length, 0, null, 0);
          if (Number(sent) !== requests.length)
            throw new Error(`${sent} of ${requests.length} bytes fit the socket`);
          const target = connection.requests + BATCH.length;
          while (connection.requests < target) {
            // A long turn has left some of them.
            if (!connection.isReady) wait(connection, ours, poller);
            if (connection.run() !== "turn") throw new Error(connection.fault);
          }
          const received = libc.recv(theirs, pointer(memory.address + SIZE), replyBytes, MSG_WAITALL);
          if (Number(received) !== replyBytes)
            throw new Error(`${received} of ${replyBytes} bytes came back`);
        }
      },
      async close() {
        close(ours);
        close(theirs);
        connection.close();
        memory.close();
        await poller.close();
      },
    };
  });
}
