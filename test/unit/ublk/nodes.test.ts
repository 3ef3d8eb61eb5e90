/** Which ublk device a target names, who owns a device, and what its queues have counted. */
import { describe, expect, test } from "bun:test";
import type { DeviceInfo } from "../../../src/ublk/control/device-info.ts";
import { seesAllProcesses } from "../../../src/nodes/openers.ts";
import { blockName, isAlive, isLeftBehind, isUblkTarget, ublkTarget } from "../../../src/ublk/nodes.ts";
import {
  BYTES_READ,
  BYTES_WRITTEN,
  ERRORS,
  makeCounters,
  REQUESTS,
  sumCounters,
} from "../../../src/queues/counters.ts";
import { userError } from "../../support/failure.ts";

describe("a target", () => {
  test.each([
    ["/dev/ublkb0", 0],
    ["/dev/ublkb41", 41],
    ["/dev/ublkb1048575", 1_048_575],
    ["ublk", undefined],
  ])("%s is device %p", (target, id) => {
    expect(isUblkTarget(target)).toBe(true);
    expect(ublkTarget(target)).toBe(id);
    if (id !== undefined) expect(`/dev/${blockName(id)}`).toBe(target);
  });

  test.each([
    "/dev/ublkc0",
    "/dev/ublkb",
    "/dev/ublkbx",
    "/dev/ublkb00",
    "/dev/ublkb07",
    "/dev/ublkb0/",
    "/dev/ublk-control",
    "/dev/ublkb0 ",
  ])("%p is none, though it was meant to be one", (target) => {
    expect(isUblkTarget(target)).toBe(true);
    expect(userError(() => ublkTarget(target))).toStartWith(
      `${target} is not a ublk device: give /dev/ublkb0`,
    );
  });

  test.each(["/dev/ublkb1048576", "/dev/ublkb4294967296", "/dev/ublkb99999999999999999999"])(
    "of a number that the driver has not, %s, is refused",
    (target) => {
      expect(userError(() => ublkTarget(target))).toBe(
        `${target} is invalid: the ublk driver has numbers up to 1048575`,
      );
    },
  );

  test("of a partition is refused, naming the whole device", () => {
    const message = userError(() => ublkTarget("/dev/ublkb7p1"));
    expect(message).toStartWith("/dev/ublkb7p1 is a partition: ");
    expect(message).toEndWith("/dev/ublkb7");
  });

  test.each(["/dev/nbd0", "auto", "nbd", "unix:/tmp/ublk.sock", "tcp:ublk:10809", ""])(
    "%p is not meant to be one",
    (target) => {
      expect(isUblkTarget(target)).toBe(false);
    },
  );
});

/** A process that has ended: its number is not used again so soon. */
const DEAD = Bun.spawnSync(["true"]).pid;
/** UBLK_S_DEV_DEAD, LIVE and QUIESCED. */
const [NO_SERVER, LIVE, QUIESCED] = [0, 1, 2];

describe("a device is left behind", () => {
  const LEFT: DeviceInfo = {
    id: 0,
    queues: 1,
    queueDepth: 128,
    requestBytes: 65_536,
    state: NO_SERVER,
    pid: -1,
    flags: 0,
    maker: DEAD,
    stamp: DEAD,
  };

  // Elsewhere somebody who is not to be seen may serve it. With the driver, all are to be seen: test/kernel/ublk.test.ts.
  test("when nobody serves it, the tsbuse that made it has ended, and all processes are to be seen", () => {
    expect(isLeftBehind(LEFT)).toBe(seesAllProcesses());
  });

  test.each<[string, Partial<DeviceInfo>]>([
    ["its maker is about to start it", { maker: process.pid }],
    ["another program made it", { maker: undefined }],
    ["it is served", { state: LIVE, pid: process.pid }],
    ["it waits for another server", { state: QUIESCED }],
    ["its second server serves it", { state: LIVE, pid: process.pid, maker: DEAD }],
  ])("but not when %s", (_, more) => {
    expect(isLeftBehind({ ...LEFT, ...more })).toBe(false);
  });

  test("a process that is there is alive, also if it is not ours to signal", () => {
    expect([isAlive(process.pid), isAlive(1), isAlive(DEAD)]).toEqual([true, true, false]);
  });
});

test("counters begin at 0, and those of all queues are added up", () => {
  const [first, second] = [makeCounters(), makeCounters()];
  expect(sumCounters([first, second])).toEqual({ requests: 0, errors: 0, bytesRead: 0, bytesWritten: 0 });
  first[REQUESTS] = 5;
  first[ERRORS] = 1;
  first[BYTES_WRITTEN] = 512;
  second[REQUESTS] = 2 ** 40;
  second[BYTES_READ] = 2 ** 52;
  expect(sumCounters([first, second])).toEqual({
    requests: 2 ** 40 + 5,
    errors: 1,
    bytesRead: 2 ** 52,
    bytesWritten: 512,
  });
  expect(sumCounters([])).toEqual({ requests: 0, errors: 0, bytesRead: 0, bytesWritten: 0 });
  expect(first.buffer).toBeInstanceOf(SharedArrayBuffer);
});
