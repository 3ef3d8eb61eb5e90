/** Goal: ending a device says whether everything was written, waits as long as it may, and is over soon after a cut. */
import { describe, expect, jest, spyOn, test } from "bun:test";
import type { BlockDevice } from "../../../src/device.ts";
import { type Attachment, ErrnoError, serve } from "../../../src/index.ts";
import { turns } from "../../support/async-devices.ts";
import { Stop } from "../../../src/serving/stop.ts";
import { serveDevice } from "../../../src/target/serve-device.ts";
import type { Transport } from "../../../src/transport.ts";
import * as nbd from "../../support/golden.ts";
import { userFailure } from "../../support/failure.ts";
import { RawClient } from "../../support/raw-client.ts";
import { Shadow } from "../../support/shadow.ts";
import { TemporaryDirectory } from "../../support/temporary.ts";
import { until } from "../../support/shell.ts";

const SIZE = 2 ** 20;
const never = (): Promise<void> => new Promise(() => undefined);
const full = (): never => {
  throw new ErrnoError("ENOSPC", "the disk below is full");
};

class Served implements AsyncDisposable {
  readonly lines: string[] = [];
  readonly #directory = new TemporaryDirectory();
  attachment!: Attachment;

  async start(device: BlockDevice, stopTimeoutMs?: number): Promise<this> {
    const log = (line: string): unknown => this.lines.push(line);
    this.attachment = await serve(device, `unix:${this.#directory.join("s")}`, { log, stopTimeoutMs });
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.attachment.close({ timeoutMs: 0 }).catch(() => undefined);
    this.#directory[Symbol.dispose]();
  }
}

function deviceOf(methods: Partial<BlockDevice>): BlockDevice {
  return { size: SIZE, read: (target) => void target.fill(0), write: () => undefined, ...methods };
}

const LOST = "what was not written is lost, check it";
const WRITTEN_LAST = "what was written last may be lost, check it";

describe("close()", () => {
  test.each<[string, Partial<BlockDevice>, number | undefined, string]>([
    [
      "a flush that fails",
      { flush: full },
      undefined,
      `the last flush failed (No space left on device): ${WRITTEN_LAST}`,
    ],
    [
      "a flush that is rejected",
      { flush: () => Promise.reject(new Error("oops")) },
      undefined,
      `the last flush failed (Input/output error): ${WRITTEN_LAST}`,
    ],
    ["a flush that never ends", { flush: never }, 20, `was cut off before the last flush was done: ${LOST}`],
    ["a close that fails", { close: full }, undefined, "the device failed to close: the disk below is full"],
    [
      "a close that never ends",
      { close: never },
      20,
      "all data was written, but the device has not closed in time",
    ],
    [
      "both",
      { flush: full, close: never },
      20,
      `the last flush failed (No space left on device): ${WRITTEN_LAST}; and the device has not closed in time`,
    ],
  ])("%s", async (_, methods, timeoutMs, message) => {
    await using served = await new Served().start(deviceOf(methods));
    const { attachment } = served;
    expect(await userFailure(attachment.close({ timeoutMs }))).toContain(message);
    expect(await userFailure(attachment.done)).toContain(`${attachment.path}`);
    // Again, after its end, and with no time at all.
    expect(await userFailure(attachment.close({ timeoutMs: 0 }))).toContain(message);
  });

  test("closes the device however it ends, once", async () => {
    for (const flush of [undefined, full, never]) {
      let closed = 0;
      const close = async (): Promise<void> => {
        await turns(3);
        closed += 1;
      };
      await using served = await new Served().start(deviceOf({ close, ...(flush && { flush }) }), 20);
      const ends = [served.attachment.close(), served.attachment.close()];
      await Promise.allSettled(ends);
      expect(closed).toBe(1);
    }
  });

  test("a request that the device never answers is named; who asks for it sooner is heard", async () => {
    await using served = await new Served().start(deviceOf({ read: never }));
    const { attachment } = served;
    using client = await RawClient.transmitting(attachment.path);
    client.send(nbd.encode({ command: nbd.READ, cookie: 1n, offset: 0, length: 512 }));
    client.send(nbd.encode({ command: nbd.WRITE, cookie: 2n, offset: 512, payload: new Uint8Array(512) }));
    await until("the write is answered", () => attachment.requests === 1);
    const patient = attachment.close();
    expect(await userFailure(attachment.close({ timeoutMs: 20 }))).toBe(
      `${attachment.path} was cut off with 1 request in flight: ${LOST}`,
    );
    expect(await userFailure(patient)).toContain("1 request in flight");
  });

  test("takes the time that the device takes, unless told otherwise", async () => {
    const gate = Promise.withResolvers<void>();
    await using served = await new Served().start(deviceOf({ flush: () => gate.promise }));
    let isOver = false;
    const closed = served.attachment.close().then(() => (isOver = true));
    await turns(20);
    expect(isOver).toBe(false);
    gate.resolve();
    await closed;
    expect(served.lines).toEqual([]);
  });
});

test("after a while the log is told what the end waits for", async () => {
  jest.useFakeTimers();
  try {
    const lines: string[] = [];
    const stop = new Stop("auto", { log: (line) => void lines.push(line) });
    const run = stop.run(never());
    stop.attached({ path: "/dev/nbd0", inFlight: 2, detach: () => undefined, cut: () => undefined });
    stop.ready();
    // A command is waited for first, and longer than a timer can be.
    stop.startClock(2 ** 40);
    jest.advanceTimersByTime(2 ** 31);
    stop.begin(3_600_000);
    jest.advanceTimersByTime(9_999);
    expect(lines).toEqual([]);
    jest.advanceTimersByTime(1);
    const awaited = "its data to be written back, with 2 requests in flight";
    expect(lines).toEqual([`/dev/nbd0 has not ended after 10 s: it waits for ${awaited}`]);
    stop.cut();
    jest.advanceTimersByTime(1000);
    expect(await userFailure(run)).toBe(`/dev/nbd0 was cut off with 2 requests in flight: ${LOST}`);
  } finally {
    jest.useRealTimers();
  }
});

test("a node that is left to its next server is not detached, and nothing is lost by a cut", async () => {
  const called: string[] = [];
  const stop = new Stop("auto");
  const run = stop.run(never());
  const note = (what: string) => () => void called.push(what);
  const path = "/dev/ublkb0";
  stop.attached({ path, inFlight: 2, detach: note("detach"), leave: note("leave"), cut: note("cut") });
  stop.ready();
  for (const end of [stop.leave, stop.leave, stop.begin, stop.cut]) end.call(stop);
  expect(called).toEqual(["leave", "cut"]);
  const left = `${path} was left with 2 requests in flight: they are made again of its next server`;
  expect(await userFailure(run)).toBe(left);
});

test("functions of the caller's that throw end nothing", async () => {
  const warnings: string[] = [];
  using _ = spyOn(process, "emitWarning").mockImplementation(
    (warning) => void warnings.push(String(warning)),
  );
  using directory = new TemporaryDirectory();
  const ready = Promise.withResolvers<Transport>();
  const options = { log: full, trace: full, onReady: ready.resolve };
  const bad = deviceOf({ read: () => Promise.reject(Object.create(null)) });
  const done = serveDevice(bad, `unix:${directory.join("s")}`, options);
  const transport = await ready.promise;
  using client = await RawClient.transmitting(transport.path);
  const read: nbd.Request = { command: nbd.READ, cookie: 1n, offset: 0, length: 512 };
  // The range of the one that has failed is free.
  const write: nbd.Request = { command: nbd.WRITE, cookie: 2n, offset: 0, payload: new Uint8Array(512) };
  client.send(nbd.encodeAll([read, write]));
  const replies = nbd.decodeReplies(await client.bytes(32), [read, write]);
  expect(replies.map(({ error }) => error)).toEqual([nbd.EIO, 0]);
  transport.detach();
  await done;
  expect(warnings).toEqual(['the function "log" of a device in use failed: the disk below is full']);
});

test("a log that throws does not keep the news about an end from going on", async () => {
  using _ = spyOn(process, "emitWarning").mockImplementation(() => undefined);
  using directory = new TemporaryDirectory();
  const gate = Promise.withResolvers<void>();
  const device = deviceOf({ flush: () => gate.promise });
  const attachment = await serve(device, `unix:${directory.join("s")}`, { log: full });
  jest.useFakeTimers();
  const closed = attachment.close();
  expect(() => jest.advanceTimersByTime(10_000)).not.toThrow();
  jest.useRealTimers();
  gate.resolve();
  await closed;
});

test("a client that reads nothing does not hold up the end", async () => {
  const shadow = new Shadow(32 * SIZE);
  await using served = await new Served().start(shadow);
  using deaf = await RawClient.transmitting(served.attachment.path);
  deaf.pause();
  deaf.send(nbd.encode({ command: nbd.READ, cookie: 1n, offset: 0, length: 32 * SIZE }));
  await until("the device has answered", () => served.attachment.requests === 1);
  await served.attachment.close();
  expect(shadow.calls.at(-1)).toBe("flush");
});
