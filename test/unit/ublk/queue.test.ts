/**
 * Goal: a queue does exactly what the driver requests, whatever that is. The driver is a stand-in; the kernel tests use
 * the real one.
 */
import { describe, expect, spyOn, test } from "bun:test";
import { Dispatch } from "../../../src/dispatch.ts";
import { ErrnoError } from "../../../src/errors.ts";
import type { QueueRequest } from "../../../src/ublk/queue/request.ts";
import { sumCounters } from "../../../src/queues/counters.ts";
import { errno } from "../../../src/uapi/errno.ts";
import {
  UBLK_IO_F_FUA,
  UBLK_IO_F_NOUNMAP,
  UBLK_IO_OP_DISCARD,
  UBLK_IO_OP_FLUSH,
  UBLK_IO_OP_READ,
  UBLK_IO_OP_WRITE,
  UBLK_IO_OP_WRITE_ZEROES,
} from "../../../src/uapi/ublk_cmd.ts";
import { AsyncStore } from "../../support/async-devices.ts";
import { pattern } from "../../support/random.ts";
import { contents, KINDS, MemoryShadow, NativeShadow, Shadow } from "../../support/shadow.ts";
import { until } from "../../support/shell.ts";
import { DEPTH, REQUEST_BYTES, type ServedQueue, useServedQueues } from "../../support/served-queue.ts";
import type { Asked } from "../../support/ublk-driver.ts";

const serve = await useServedQueues();

const SIZE = 2 ** 20;

const oops = (): never => {
  throw new Error("oops");
};

const READ = { operation: UBLK_IO_OP_READ, length: 512 };
const WRITE = { operation: UBLK_IO_OP_WRITE, data: pattern(512, 1) };

function readAt(offset: number, length = 512): Asked {
  return { ...READ, offset, length };
}

describe("a queue", () => {
  test.each([0, 1, 3])(
    "hands all its tags over, and has its own descriptors and buffers: queue %d",
    (index) => {
      using served = serve(new Shadow(SIZE), {}, { index });
      const addresses = [...served.driver.addresses];
      const first = Math.min(...addresses);
      expect(addresses.toSorted((a, b) => a - b)).toEqual(
        addresses.map((_, tag) => first + tag * REQUEST_BYTES),
      );
      expect(served.answer(2, readAt(512, 1024))).toBe(1024);
    },
  );

  test.each(KINDS)("reads and writes a %s device, and answers with the number of bytes", (_, make) => {
    const device = make(SIZE);
    using served = serve(device);
    const data = pattern(8192, 3);
    expect(served.answer(5, { operation: UBLK_IO_OP_WRITE, offset: 4096, data })).toBe(8192);
    expect(contents(device).subarray(4096, 12_288)).toEqual(data);
    expect(served.answer(2, readAt(4608, 1024))).toBe(1024);
    expect(served.driver.buffer(2, 1024)).toEqual(data.subarray(512, 1536));
    expect(sumCounters([served.counters])).toEqual({
      requests: 2,
      errors: 0,
      bytesRead: 1024,
      bytesWritten: 8192,
    });
  });

  test("reaches the last block of a device of four petabytes", () => {
    const offsets: number[] = [];
    const device = {
      size: 2 ** 52,
      read: (_target: Uint8Array, offset: number) => void offsets.push(offset),
    };
    using served = serve(device);
    expect(served.answer(0, readAt(2 ** 52 - 512))).toBe(512);
    expect(offsets).toEqual([2 ** 52 - 512]);
  });

  test.each<[string, typeof Shadow, number, number, string[]]>([
    ["a write with FUA", Shadow, UBLK_IO_OP_WRITE, UBLK_IO_F_FUA, ["write 512+512", "flush"]],
    ["a write with FUA of its own", NativeShadow, UBLK_IO_OP_WRITE, UBLK_IO_F_FUA, ["write 512+512 fua"]],
    ["a flush", Shadow, UBLK_IO_OP_FLUSH, 0, ["flush"]],
    ["a trim", Shadow, UBLK_IO_OP_DISCARD, 0, ["trim 512+512"]],
    ["zeroes", Shadow, UBLK_IO_OP_WRITE_ZEROES, 0, ["writeZeroes 512+512 hole"]],
    ["zeroes with space", Shadow, UBLK_IO_OP_WRITE_ZEROES, UBLK_IO_F_NOUNMAP, ["writeZeroes 512+512"]],
    ["zeroes, FUA", NativeShadow, UBLK_IO_OP_WRITE_ZEROES, UBLK_IO_F_FUA, ["writeZeroes 512+512 fua hole"]],
  ])("brings to the device: %s", (_, Device, operation, flags, calls) => {
    const device = new Device(SIZE);
    using served = serve(device);
    const result = served.answer(1, { operation, flags, offset: 512, length: 512 });
    expect(result).toBe(operation === UBLK_IO_OP_WRITE ? 512 : 0);
    expect(device.calls).toEqual(calls);
  });

  // 10 to 15 are the zone operations, 18 is the report of zones; 4 never was an operation, and 200 is not one yet.
  test.each([4, 10, 11, 12, 13, 14, 15, 18, 200])(
    "refuses operation %d, leaves the device alone, and goes on",
    (operation) => {
      const device = new Shadow(SIZE);
      using served = serve(device);
      expect(served.answer(0, { operation, offset: 0, length: 4096 })).toBe(-errno.EOPNOTSUPP);
      expect(device.calls).toEqual([]);
      expect(served.answer(0, READ)).toBe(512);
    },
  );

  test.each([
    ["a read beyond the end", UBLK_IO_OP_READ, SIZE - 512, 1024, errno.EINVAL],
    ["a write beyond the end", UBLK_IO_OP_WRITE, SIZE, 512, errno.ENOSPC],
    ["a trim beyond the end", UBLK_IO_OP_DISCARD, SIZE - 512, 1024, errno.ENOSPC],
    ["a read that is longer than its buffer", UBLK_IO_OP_READ, 0, REQUEST_BYTES + 512, errno.EINVAL],
    ["a write that is longer than its buffer", UBLK_IO_OP_WRITE, 0, REQUEST_BYTES + 512, errno.EINVAL],
    ["a read of nothing", UBLK_IO_OP_READ, 0, 0, errno.EINVAL],
  ])("refuses %s", (_, operation, offset, length, number) => {
    const device = new Shadow(SIZE);
    using served = serve(device);
    expect(served.answer(0, { operation, offset, length })).toBe(-number);
    expect(device.calls).toEqual([]);
    expect(sumCounters([served.counters])).toMatchObject({ requests: 1, errors: 1 });
  });

  test("makes an errno of what a device throws, and goes on", () => {
    const device = new Shadow(SIZE);
    using served = serve(device);
    device.faults.set("write", () => {
      throw new ErrnoError("ENOSPC", "the disk is full");
    });
    device.faults.set("read", () => {
      throw new Error("a bad sector");
    });
    expect(served.answer(0, { operation: UBLK_IO_OP_WRITE, length: 512 })).toBe(-errno.ENOSPC);
    expect(served.answer(0, READ)).toBe(-errno.EIO);
    expect(served.lines).toEqual(["write failed: the disk is full", "read failed (EIO): a bad sector"]);
    expect(served.answer(0, READ)).toBe(512);
  });

  test("ends when the driver has taken all tags back, and not before", () => {
    using served = serve(new Shadow(SIZE));
    served.driver.ask(3, READ);
    served.driver.stop();
    expect(served.queue.turn(false)).toBe(true);
    expect(served.queue.turn(false)).toBe(true);
    expect(served.resultOf(3)).toBe(512);
    served.driver.stop();
    expect(served.turn()).toBe(false);
  });

  test("goes on after a signal or a shortage, and throws when the ring fails", () => {
    using served = serve(new Shadow(SIZE));
    for (const passing of [errno.EINTR, errno.EAGAIN, errno.EBUSY]) {
      served.driver.ring.fault = -passing;
      expect(served.queue.turn(true)).toBe(true);
    }
    served.driver.ring.fault = -errno.EBADF;
    expect(() => served.queue.turn(true)).toThrow(`io_uring_enter failed with ${-errno.EBADF}`);
  });

  test("traces each request when it is answered", () => {
    const seen: string[] = [];
    const trace = (request: QueueRequest, error: number): unknown =>
      seen.push(`${request.describe()}${request.fua ? " fua" : ""} ${error}`);
    using served = serve(new Shadow(SIZE), { trace });
    served.answer(1, { operation: UBLK_IO_OP_WRITE, flags: UBLK_IO_F_FUA, offset: 512, length: 1024 });
    served.answer(2, readAt(SIZE));
    served.answer(3, { operation: 12 });
    expect(seen).toEqual([
      "write offset 512 length 1024 fua 0",
      `read offset ${SIZE} length 512 ${errno.EINVAL}`,
      `operation 12 offset 0 length 0 ${errno.EOPNOTSUPP}`,
    ]);
  });

  test("names the place of a write's data in a device that is memory, or where refused data may go", () => {
    const device = new MemoryShadow(SIZE);
    using served = serve(device, {}, { needGetData: true });
    const { driver } = served;
    const data = pattern(1024, 5);
    expect(served.answer(1, { operation: UBLK_IO_OP_WRITE, offset: 4096, data })).toBe(1024);
    expect(driver.addresses[1]).toBe(device.memory.address + 4096);
    expect(contents(device).subarray(4096, 5120)).toEqual(data);
    expect(served.answer(1, { operation: UBLK_IO_OP_WRITE, offset: SIZE, data })).toBe(-errno.ENOSPC);
    expect(served.answer(1, readAt(4096, 1024))).toBe(1024);
    expect(driver.buffer(1, 1024)).toEqual(data);
  });

  test("tells such a device when the data is there, and of nothing that it has refused", () => {
    const shadow = new MemoryShadow(SIZE);
    const calls: string[] = [];
    const told =
      (what: string, result: number) =>
      (offset: number, length: number): number => {
        calls.push(`${what} ${offset}+${length}`);
        return offset === 0 ? result : 0;
      };
    const memory = {
      address: shadow.memory.address,
      admit: told("admit", errno.ENOSPC),
      landed: told("landed", 0),
    };
    const device = { size: SIZE, memory, read: () => undefined, write: () => undefined };
    using served = serve(device, {}, { needGetData: true });
    const data = pattern(1024, 5);
    expect(served.answer(1, { operation: UBLK_IO_OP_WRITE, offset: 0, data })).toBe(-errno.ENOSPC);
    expect(served.answer(1, { operation: UBLK_IO_OP_WRITE, offset: 4096, data })).toBe(1024);
    expect(calls).toEqual(["admit 0+1024", "admit 4096+1024", "landed 4096+1024"]);
  });

  test("closes its ring", () => {
    const served = serve(new Shadow(SIZE));
    served[Symbol.dispose]();
    expect(served.driver.ring.closed).toBe(true);
  });
});

describe("a turn", () => {
  const DEEP = 128;

  /** A queue whose device takes `pieceMs` of a clock of its own for each read, with a read for each tag. */
  function serveSlowly(pieceMs: number): {
    readonly served: ServedQueue;
    readonly reads: number[];
    stop(): void;
  } {
    let nowMs = 0;
    const clock = spyOn(performance, "now").mockImplementation(() => nowMs);
    const reads: number[] = [];
    const read = (_target: Uint8Array, offset: number): void => {
      nowMs += pieceMs;
      reads.push(offset / 512);
    };
    const served = serve({ size: SIZE, read }, {}, { depth: DEEP });
    for (let tag = 0; tag < DEEP; tag += 1) served.driver.ask(tag, readAt(tag * 512));
    const stop = (): void => {
      clock.mockRestore();
      served[Symbol.dispose]();
    };
    return { served, reads, stop };
  }

  test("does not begin all that is there while the device takes its time; later ones begin it in order", () => {
    const { served, reads, stop } = serveSlowly(2);
    try {
      expect(served.queue.turn(false)).toBe(true);
      expect(reads).toEqual([0, 1, 2]);
      expect([served.queue.hasRequests, served.queue.hasAnswers]).toEqual([true, true]);
      // The next turn submits the answers before it begins anything.
      served.queue.submit(false);
      expect(served.driver.answers).toBe(3);
      expect(served.turn()).toBe(true);
      expect(reads).toEqual(Array.from({ length: DEEP }, (_, tag) => tag));
      expect(served.driver.answers).toBe(DEEP);
    } finally {
      stop();
    }
  });

  test("begins all that is there of a device that is quick", () => {
    const { served, reads, stop } = serveSlowly(0.001);
    try {
      expect(served.queue.turn(false)).toBe(true);
      expect([reads.length, served.queue.hasRequests]).toEqual([DEEP, false]);
    } finally {
      stop();
    }
  });
});

describe("a queue in which something throws that is no method of the device", () => {
  test.each([false, true])(
    "says so once, answers all there is and all that comes with EIO, and ends with the device: needGetData %p",
    (needGetData) => {
      const device = new MemoryShadow(SIZE);
      const failures: unknown[] = [];
      const failed = (error: unknown): unknown => failures.push(error);
      using _ = spyOn(Dispatch.prototype, "checkWrite").mockImplementation(oops);
      using served = serve(device, { failed }, { needGetData });
      const { driver } = served;
      expect(served.answer(6, READ)).toBe(512);
      // Two before it, and two after it, in one turn.
      served.askAll(READ, READ, WRITE, WRITE, READ);
      const results = [0, 1, 2, 3, 4].map((tag) => served.resultOf(tag));
      expect(results).toEqual([512, 512, -errno.EIO, -errno.EIO, -errno.EIO]);
      for (const asked of [READ, WRITE, { operation: UBLK_IO_OP_FLUSH }]) {
        driver.ask(5, asked);
        served.turn();
        expect(served.resultOf(5)).toBe(-errno.EIO);
      }
      expect(driver.answers).toBe(9);
      expect(failures).toEqual([new Error("oops")]);
      expect(contents(device).some((byte) => byte !== 0)).toBe(false);
      driver.stop();
      expect(served.turn()).toBe(false);
    },
  );

  test("answers a request once, though what throws comes after the answer", () => {
    const failures: unknown[] = [];
    using served = serve(new Shadow(SIZE), { trace: oops, failed: (error) => failures.push(error) });
    served.askAll(READ, READ);
    expect([served.resultOf(0), served.resultOf(1)]).toEqual([512, -errno.EIO]);
    expect([served.driver.answers, failures]).toEqual([2, [new Error("oops")]]);
  });

  test("answers what is in flight, and what waits for it, and takes late answers for nothing", async () => {
    const device = new AsyncStore(SIZE);
    const failures: unknown[] = [];
    const options = { trace: oops, failed: (error: unknown): unknown => failures.push(error) };
    using served = serve(device, options);
    const { driver } = served;
    const gate = Promise.withResolvers<void>();
    const first = Promise.withResolvers<void>();
    let calls = 0;
    device.hold = () => (calls++ === 0 ? first.promise : gate.promise);
    served.askAll({ ...WRITE, offset: 8192 }, WRITE, READ);
    expect(driver.answers).toBe(0);
    first.resolve();
    await served.untilAnswered(512, -errno.EIO, -errno.EIO);
    gate.resolve();
    await served.untilSettled();
    expect([driver.answers, failures]).toEqual([3, [new Error("oops")]]);
  });
});

describe("a queue of a device that returns promises", () => {
  test("answers in the order in which they settle", async () => {
    const device = new AsyncStore(SIZE);
    using served = serve(device);
    const gates = [0, 1, 2].map(() => Promise.withResolvers<void>());
    device.hold = (offset) => gates[offset / 4096]?.promise;
    served.askAll(readAt(0), readAt(4096), readAt(8192));
    expect(device.inFlight).toBe(3);
    expect(served.queue.waitsForDevice).toBe(true);
    for (const tag of [2, 0, 1]) {
      let answered = false;
      served.queue.onAnswer = () => (answered = true);
      gates[tag]?.resolve();
      await until(`tag ${tag} is answered`, () => answered);
      served.turn();
      expect(served.resultOf(tag)).toBe(512);
    }
  });

  test("holds a request back that touches the bytes of one in flight, and no other", async () => {
    const device = new AsyncStore(SIZE);
    using served = serve(device);
    const gate = Promise.withResolvers<void>();
    device.hold = () => gate.promise;
    const write = { operation: UBLK_IO_OP_WRITE, offset: 4096, data: pattern(4096, 1) };
    served.askAll(write, readAt(7680, 1024), readAt(8192), { operation: UBLK_IO_OP_FLUSH });
    // The write, the read behind it, and the flush; not the read of what is being written.
    expect(device.inFlight).toBe(3);
    gate.resolve();
    await served.untilAnswered(4096, 1024, 512, 0);
    expect(served.driver.buffer(1, 1024).subarray(0, 512)).toEqual(pattern(4096, 1).subarray(3584));
  });

  test("answers for one that takes too long, and keeps the buffer until it is done", async () => {
    const device = new AsyncStore(SIZE);
    using served = serve(device, { requestTimeoutMs: 20 });
    const { driver } = served;
    const gate = Promise.withResolvers<void>();
    device.bytes.fill(7);
    device.hold = () => gate.promise;
    const before = driver.addresses[0];
    served.askAll(READ);
    await served.untilAnswered(-errno.EIO);
    expect(served.lines).toEqual(["read offset 0 length 512 took more than 0.02 s: answered with EIO"]);
    expect(driver.addresses[0]).not.toBe(before);
    device.hold = () => undefined;
    // The tag's next request has another buffer, so the late answer does not touch it.
    served.askAll({ ...WRITE, offset: 8192 });
    gate.resolve();
    await served.untilSettled();
    expect([device.inFlight, served.resultOf(0)]).toEqual([0, 512]);
    expect(device.bytes.subarray(8192, 8704)).toEqual(WRITE.data);
    expect(driver.buffer(0, 512)).toEqual(WRITE.data);
  });

  test("told to refuse, answers what the device has and what comes, each once, however late the device is", async () => {
    const device = new AsyncStore(SIZE);
    const limitMs = 20;
    using served = serve(device, { requestTimeoutMs: limitMs });
    const { driver } = served;
    const gate = Promise.withResolvers<void>();
    device.hold = () => gate.promise;
    served.askAll(WRITE);
    // The eventfd has been added to.
    driver.ring.complete(-1, 1);
    served.turn();
    expect(served.resultOf(0)).toBe(-errno.EIO);
    // The time of the request passes: the driver would refuse a second answer.
    await Bun.sleep(3 * limitMs);
    served.turn();
    expect([driver.answers, served.lines]).toEqual([1, []]);
    // The data of the tag's next request comes to another buffer than the one that the device still has.
    expect(served.answer(0, { ...WRITE, offset: 4096, data: pattern(512, 2) })).toBe(-errno.EIO);
    expect(device.inFlight).toBe(1);
    gate.resolve();
    await served.untilSettled();
    expect(driver.answers).toBe(2);
    expect(device.bytes.subarray(0, 512)).toEqual(WRITE.data);
  });

  test("told to leave, answers what it has begun, begins nothing more, and submits the last answer", async () => {
    const device = new AsyncStore(SIZE);
    const served = serve(device);
    const { driver, queue } = served;
    const gate = Promise.withResolvers<void>();
    device.hold = () => gate.promise;
    served.askAll(WRITE);
    expect(device.inFlight).toBe(1);
    // The eventfd has been added to.
    driver.ring.complete(-2, 1);
    expect(queue.turn(false)).toBe(true);
    driver.ask(1, { ...WRITE, offset: 4096 });
    expect([queue.turn(false), device.inFlight]).toEqual([true, 1]);
    gate.resolve();
    await until("the device has answered", () => !queue.waitsForDevice);
    expect(queue.begin()).toBe(false);
    queue.close();
    expect([driver.answers, served.resultOf(0), served.resultOf(1)]).toEqual([1, 512, undefined]);
    expect(device.bytes.subarray(4096, 4608)).toEqual(new Uint8Array(512));
    driver[Symbol.dispose]();
  });

  test("that has ended submits no late answer, and begins nothing that waited", async () => {
    const device = new AsyncStore(SIZE);
    using served = serve(device);
    const { driver, queue } = served;
    const gate = Promise.withResolvers<void>();
    device.hold = () => gate.promise;
    served.askAll(WRITE, { ...WRITE, data: pattern(512, 2) });
    expect([device.inFlight, queue.waitsForDevice]).toEqual([1, true]);
    queue.close();
    gate.resolve();
    await until("the device has settled all", () => !queue.waitsForDevice);
    expect(driver.ring.pushed).toBe(0);
    expect(device.bytes.subarray(0, 512)).toEqual(WRITE.data);
  });

  test.each(["time out", "are refused when the device is stopped"])(
    "requests that %s are all answered, also where some were left unanswered before",
    async (end) => {
      const device = new AsyncStore(SIZE);
      device.hold = () => new Promise(() => undefined);
      using served = serve(device, { requestTimeoutMs: end === "time out" ? 20 : 200 });
      const { driver } = served;
      const tags = Array.from({ length: DEPTH }, (_, tag) => tag);
      const ask = (tag: number, at: number): void =>
        driver.ask(tag, { operation: UBLK_IO_OP_READ, offset: at * 512, length: 512 });
      const answered = async (count: number): Promise<void> =>
        until(`${count} are answered`, () => {
          served.turn();
          return driver.answers === count;
        });
      const first = DEPTH - 1;
      for (const tag of tags.slice(0, first)) ask(tag, tag);
      served.turn();
      await answered(first);
      for (const tag of tags) ask(tag, DEPTH + tag);
      served.turn();
      expect(driver.answers).toBe(first);
      // The eventfd has been added to.
      if (end !== "time out") driver.ring.complete(-1, 1);
      await answered(first + DEPTH);
      expect(tags.map((tag) => served.resultOf(tag))).toEqual(tags.map(() => -errno.EIO));
      expect(served.lines.length).toBe(end === "time out" ? first + DEPTH : first);
      driver.stop();
      expect(served.queue.turn(false)).toBe(false);
    },
  );

  test("a device that answers nothing gets no more than the depth, and the driver its answers; then all is well", async () => {
    const device = new AsyncStore(SIZE);
    using served = serve(device, { requestTimeoutMs: 10 });
    const tags = Array.from({ length: DEPTH }, (_, tag) => tag);
    const reads = tags.map((tag) => readAt(tag * 512));
    for (let round = 0; round < 6; round += 1) {
      const gate = Promise.withResolvers<void>();
      device.hold = () => gate.promise;
      for (const _twice of [1, 2]) {
        served.askAll(...reads);
        await served.untilAnswered(...tags.map(() => -errno.EIO));
        expect(device.inFlight).toBe(DEPTH);
      }
      gate.resolve();
      await served.untilSettled();
    }
    device.hold = () => undefined;
    device.bytes.fill(9);
    served.askAll(...reads);
    await served.untilAnswered(...tags.map(() => 512));
    for (const tag of tags) expect(served.driver.buffer(tag, 512)).toEqual(new Uint8Array(512).fill(9));
  });
});
