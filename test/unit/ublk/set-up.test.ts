/** Goal: however the driver refuses, one line tells the user why, and the attempt leaves nothing behind. */
import { describe, expect, test } from "bun:test";
import { Dispatch } from "../../../src/dispatch.ts";
import type { Commands, ControlCommand } from "../../../src/ublk/control/control.ts";
import { encodeDeviceInfo } from "../../../src/ublk/control/device-info.ts";
import { makeDevice } from "../../../src/ublk/control/set-up.ts";
import { errno } from "../../../src/uapi/errno.ts";
import {
  UBLK_S_DEV_DEAD,
  UBLK_U_CMD_ADD_DEV,
  UBLK_U_CMD_DEL_DEV_ASYNC,
  UBLK_U_CMD_GET_DEV_INFO,
  UBLK_U_CMD_GET_FEATURES,
  UBLK_U_CMD_SET_PARAMS,
  ublksrv_ctrl_dev_info,
} from "../../../src/uapi/ublk_cmd.ts";
import { userFailure } from "../../support/failure.ts";
import { Shadow } from "../../support/shadow.ts";
import { standIn } from "../../support/stand-in.ts";

/** A driver that answers each command with a number of the test's choice, 0 where it has none. */
class Driver implements Commands {
  /** Commands in order, those that ask what there is left out. */
  readonly changes: number[] = [];

  constructor(
    readonly answers: Readonly<Record<number, number>>,
    readonly queues = 1,
  ) {}

  command(operation: number, { buffer }: ControlCommand): Promise<number> {
    if (operation === UBLK_U_CMD_GET_DEV_INFO && buffer !== undefined) {
      buffer.set(encodeDeviceInfo({ id: 3, queues: 1, queueDepth: 8, requestBytes: 4096, flags: 0 }, 1));
      // UBLK_S_DEV_LIVE, and the ID of its server in a container: no process has it here.
      const view = new DataView(buffer.buffer, buffer.byteOffset);
      view.setUint16(ublksrv_ctrl_dev_info.state, 1, true);
      view.setInt32(ublksrv_ctrl_dev_info.ublksrv_pid, 2 ** 22, true);
    }
    if (operation !== UBLK_U_CMD_GET_FEATURES) this.changes.push(operation);
    if (operation === UBLK_U_CMD_ADD_DEV)
      buffer?.set(
        encodeDeviceInfo({ id: 5, queues: this.queues, queueDepth: 8, requestBytes: 4096, flags: 0 }),
      );
    return Promise.resolve(this.answers[operation] ?? 0);
  }

  commandApart(operation: number): Promise<number> {
    return this.command(operation, {});
  }
}

function make(driver: Driver, target: number | undefined): Promise<unknown> {
  return makeDevice(driver, target, new Dispatch(new Shadow(2 ** 20)), {});
}

describe("a device that the driver will not add", () => {
  const ANY = "a ublk device";
  test.each([
    [errno.EACCES, undefined, `${ANY} cannot be made: the driver has as many as it may, see /sys/module/`],
    [errno.ENOSPC, 7, "/dev/ublkb7 cannot be made: the driver has as many as it may, see /sys/module/"],
    [errno.EPERM, 7, "/dev/ublkb7 cannot be made: run it as root"],
    [
      errno.ENOMEM,
      7,
      "/dev/ublkb7 cannot be made, the kernel is out of memory: give a smaller --queue-depth",
    ],
    [errno.ETIMEDOUT, undefined, `${ANY} cannot be made: the driver does not answer, see "dmesg"`],
    [errno.EEXIST, undefined, `${ANY} has just been taken: choose another number`],
    [errno.EOVERFLOW, undefined, `${ANY} cannot be made (`],
  ])("with errno %d, number %p", async (number, target, line) => {
    const driver = new Driver({ [UBLK_U_CMD_ADD_DEV]: -number });
    const said = await userFailure(make(driver, target));
    expect(said).toStartWith(line);
    expect(said).not.toContain("\n");
    expect(driver.changes).toEqual([UBLK_U_CMD_ADD_DEV]);
  });
});

test("a driver that is too old to be asked what it can do is told nothing", async () => {
  const driver = new Driver({ [UBLK_U_CMD_GET_FEATURES]: -errno.EOPNOTSUPP });
  expect(await userFailure(make(driver, 0))).toContain("use Linux 6.5 or newer, or an NBD node");
  expect(driver.changes).toEqual([]);
});

test("a device whose parameters are refused is deleted again", async () => {
  const driver = new Driver({ [UBLK_U_CMD_SET_PARAMS]: -errno.EINVAL });
  await expect(make(driver, 5)).rejects.toThrow("what the ublk driver is to know of /dev/ublkb5");
  expect(driver.changes).toEqual([UBLK_U_CMD_ADD_DEV, UBLK_U_CMD_SET_PARAMS, UBLK_U_CMD_DEL_DEV_ASYNC]);
});

test("the server of another device is not waited for, whatever number it has where it runs", async () => {
  await using _ = await standIn({ "ublk/nodes.ts": { ublkIds: () => [3], processServing: () => 1 } });
  const driver = new Driver({});
  await make(driver, 5);
  expect(driver.changes).toEqual([UBLK_U_CMD_GET_DEV_INFO, UBLK_U_CMD_ADD_DEV, UBLK_U_CMD_SET_PARAMS]);
});

test("of two starts at once one deletes what is left behind: its number may be the other one's by then", async () => {
  let isGone = false;
  class Slow extends Driver {
    override async commandApart(operation: number): Promise<number> {
      await Bun.sleep(50);
      isGone = true;
      return this.command(operation, {});
    }
  }
  const left = { state: UBLK_S_DEV_DEAD };
  const deviceInfo = (): unknown => (isGone ? undefined : left);
  await using _ = await standIn({
    // Every process locks the same file.
    "ublk/control/control.ts": { CONTROL_PATH: import.meta.path },
    "ublk/nodes.ts": { ublkIds: () => (isGone ? [] : [3]), deviceInfo, isLeftBehind: () => true },
  });
  const driver = new Slow({});
  await Promise.all([make(driver, 5), make(driver, 6)]);
  expect(driver.changes.filter((command) => command === UBLK_U_CMD_DEL_DEV_ASYNC)).toHaveLength(1);
});
