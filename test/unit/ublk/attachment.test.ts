/** Goal: a server never ends a device that is not its own. */
import { expect, test } from "bun:test";
import { readSync } from "node:fs";
import { Dispatch } from "../../../src/dispatch.ts";
import { UserError } from "../../../src/errors.ts";
import { open } from "../../../src/libc/file.ts";
import type { ControlCommand } from "../../../src/ublk/control/control.ts";
import {
  decodeDeviceInfo,
  type DeviceInfo,
  encodeDeviceInfo,
} from "../../../src/ublk/control/device-info.ts";
import type { QueuePlace } from "../../../src/ublk/queue/place.ts";
import { O_RDWR } from "../../../src/uapi/fcntl.ts";
import {
  UBLK_F_USER_RECOVERY,
  UBLK_U_CMD_DEL_DEV_ASYNC,
  UBLK_U_CMD_END_USER_RECOVERY,
  UBLK_U_CMD_START_DEV,
  UBLK_U_CMD_STOP_DEV,
} from "../../../src/uapi/ublk_cmd.ts";
import { Shadow } from "../../support/shadow.ts";
import { standInForFile } from "../../support/stand-in.ts";

const SHAPE = { id: 77, queues: 1, queueDepth: 4, requestBytes: 4096, flags: UBLK_F_USER_RECOVERY };
const NAMES: Readonly<Record<number, string>> = {
  [UBLK_U_CMD_END_USER_RECOVERY]: "END_USER_RECOVERY",
  [UBLK_U_CMD_START_DEV]: "START_DEV",
  [UBLK_U_CMD_STOP_DEV]: "STOP_DEV",
  [UBLK_U_CMD_DEL_DEV_ASYNC]: "DEL_DEV",
};
/** Of the device that has the number now. */
let stamp = 1;
/** What was done, in order; and what is to happen while one of these is done. */
let done: string[] = [];
let meanwhile: [string, () => void] | undefined;
/** When the queues end. */
let queuesEnd = Promise.resolve();

function step(name: string): void {
  done.push(name);
  if (meanwhile?.[0] === name) meanwhile[1]();
}

/** A driver that does what it is told. */
class Control {
  command(_operation: number, { buffer }: ControlCommand): Promise<number> {
    buffer?.set(encodeDeviceInfo(SHAPE, stamp));
    return Promise.resolve(0);
  }

  commandApart(operation: number): Promise<number> {
    step(NAMES[operation] ?? `command ${operation}`);
    return Promise.resolve(0);
  }

  close(): void {
    // There is nothing.
  }
}

function isSet(eventfd: number): boolean {
  try {
    return readSync(eventfd, new Uint8Array(8)) === 8;
  } catch {
    // EAGAIN: nothing was added to it.
    return false;
  }
}

const found = async (): Promise<DeviceInfo> => decodeDeviceInfo(encodeDeviceInfo(SHAPE, 1));
const prepareQueue = async ({ leaveFd = -1 }: QueuePlace): Promise<unknown> => ({
  handOver: async () => step(isSet(leaveFd) ? "hand over a queue that leaves" : "hand over"),
  ended: () => queuesEnd,
  end: async () => {
    if (isSet(leaveFd)) step("left");
  },
});
await standInForFile({
  "ublk/control/control.ts": { Control },
  "ublk/control/take-over.ts": {
    findWaiting: found,
    findServed: found,
    waitUntilLetGo: async () => undefined,
    beginTakeOver: async () => step("begin"),
    completeQueues: async () => step("complete"),
  },
  "ublk/control/set-up.ts": { makeDevice: found, openCharacterDevice: () => open("/dev/null", O_RDWR) },
  "ublk/device-nodes.ts": {
    makeCharacterNode: () => (step("character node"), []),
    makeBlockNodes: () => (step("block node"), []),
  },
  "ublk/queue/start.ts": { prepareQueue },
});
const { UblkAttachment } = await import("../../../src/ublk/attachment.ts");

const BEGUN = ["character node", "begin", "hand over"];
const RESUMED = [...BEGUN, "END_USER_RECOVERY"];

const PLAIN = { size: 2 ** 20, read: () => undefined };
const SHARED = { ...PLAIN, shared: { kind: "ramdisk", state: 0 } };
const END = { startClock: () => undefined, flush: async () => undefined };

test.each([
  ["is cut", "character node", ["character node"]],
  ["is cut", "begin", RESUMED],
  ["is cut", "hand over", RESUMED],
  ["fails", "hand over", [...BEGUN, "complete"]],
  ["is cut", "END_USER_RECOVERY", RESUMED],
  ["fails", "block node", [...RESUMED, "block node"]],
  ["is cut", "ready", [...RESUMED, "block node", "ready"]],
  ["fails", "ready", [...RESUMED, "block node", "ready"]],
])("a takeover that %s at this step leaves the device waiting: %s", async (how, name, all) => {
  const reason = new UserError("stopped");
  const attachment = new UblkAttachment(SHAPE.id, new Dispatch(new Shadow(2 ** 20)), { resume: true });
  done = [];
  meanwhile = [
    name,
    () => {
      if (how === "fails") throw reason;
      attachment.cut(reason);
    },
  ];
  await expect(attachment.serve(() => step("ready"), END)).rejects.toBe(reason);
  expect(done).toEqual([...all, "left"]);
});

test.each([
  ["is deleted", 1, ["STOP_DEV", "DEL_DEV"]],
  ["is let be when its number is another one's by then", 2, ["STOP_DEV"]],
])("a device that has ended %s", async (_, now, last) => {
  [done, meanwhile, stamp] = [[], undefined, now];
  const attachment = new UblkAttachment(undefined, new Dispatch(new Shadow(2 ** 20)), {});
  await attachment.serve(() => step("ready"), END);
  expect(done.slice(done.indexOf("ready") + 1)).toEqual(last);
});

function cannotWrite(): never {
  throw new UserError("no PID file");
}

test.each([
  ["nothing fails", undefined, ["ready", "done"]],
  ["it fails when it is ready", "ready", ["ready", "left"]],
])("a takeover is done for the other process once nothing can fail any more: %s", async (_, name, last) => {
  const takeOver = {
    hasData: true,
    identity: undefined,
    descriptor: () => -1,
    release: async () => step("release") === undefined,
    done: async () => step("done"),
  };
  const attachment = new UblkAttachment(SHAPE.id, new Dispatch(new Shadow(2 ** 20)), { takeOver });
  [done, meanwhile, stamp] = [[], name === undefined ? undefined : [name, cannotWrite], 1];
  await attachment.serve(() => step("ready"), END).catch(() => undefined);
  expect(done.slice(0, 3)).toEqual(["character node", "release", "begin"]);
  expect(done.slice(done.indexOf("ready")).slice(0, 2)).toEqual(last);
});

test.each([
  ["that threads serve is served on, and ended then", true, ["begin", "hand over", "END_USER_RECOVERY"], []],
  ["that this thread served waits, with a line", false, [], [expect.stringContaining("waits for its next")]],
])("a device that nobody takes over after all, %s", async (_, isShared, steps, lines) => {
  const log: string[] = [];
  const dispatch = new Dispatch(isShared ? SHARED : PLAIN);
  const attachment = new UblkAttachment(undefined, dispatch, { log: (line) => log.push(line) });
  const [ready, first] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  // It is told to end while it takes the device back.
  [done, meanwhile, queuesEnd] = [[], ["begin", () => attachment.leave()], first.promise];
  const served = attachment.serve(ready.resolve, END);
  await ready.promise;
  const before = done.length;
  const left = attachment.handover?.letGo();
  queuesEnd = Promise.resolve();
  first.resolve();
  await left;
  attachment.handover?.takeBack();
  await served;
  expect(done.slice(before).filter((each) => !each.endsWith(" node") && each !== "left")).toEqual(steps);
  expect(log).toEqual(lines);
});

test("a device that is to be left when it has failed already is put away", async () => {
  const attachment = new UblkAttachment(undefined, new Dispatch(new Shadow(2 ** 20)), {});
  const failure = new Error("the thread is gone");
  [done, meanwhile, stamp] = [[], ["STOP_DEV", () => attachment.leave()], 1];
  queuesEnd = Promise.reject(failure);
  await expect(attachment.serve(() => step("ready"), END)).rejects.toBe(failure);
  expect(done.at(-1)).toBe("DEL_DEV");
});
