/** Detaching /dev/ublkbN, whichever program serves it. */
import { existsSync } from "node:fs";
import { UserError } from "../../errors.ts";
import { errorText } from "../../libc/errno.ts";
import { useOf } from "../../nodes/node-use.ts";
import { isPrivileged } from "../../nodes/privileges.ts";
import { writeBack } from "../../nodes/write-back.ts";
import { errno } from "../../uapi/errno.ts";
import { Control } from "./control.ts";
import { deleteDevice, stopDevice } from "./end.ts";
import { blockName, deviceInfo, ublkNodeState } from "../nodes.ts";

/** How long server and driver get to let go of the device, in milliseconds: there may be much to write. */
const LIMIT_MS = 10_000;
const POLL_MS = 20;

/** Returns when the device is gone. @throws UserError when it is not, or has lost data. */
export async function disconnectUblk(id: number, force: boolean): Promise<void> {
  const path = `/dev/${blockName(id)}`;
  if (!existsSync(`/sys/class/ublk-char/ublkc${id}`))
    throw new UserError(`${path} is not attached: see what is with "tsbuse list"`);
  if (!isPrivileged())
    throw new UserError(`disconnecting ${path} needs root: run it with sudo (capability CAP_SYS_ADMIN)`);
  const control = new Control();
  try {
    await takeAway(control, id, force);
  } finally {
    control.close();
  }
}

async function takeAway(control: Control, id: number, force: boolean): Promise<void> {
  const state = ublkNodeState(id, await deviceInfo(control, id));
  const use = force ? undefined : useOf(state);
  if (use !== undefined)
    throw new UserError(`${state.path} is ${use.how}: ${use.remedy}, or cut it off with --force`);

  // Nobody answers for a server that is gone: what it did not take was lost before we came.
  const written = force || state.pid === undefined ? 0 : writeBack(state.name);
  const stopped = await stopDevice(control, id, LIMIT_MS);
  if (stopped === -errno.ETIMEDOUT) {
    const remedy = state.pid === undefined ? 'see "dmesg"' : `end it with "kill -9 ${state.pid}"`;
    throw new UserError(`${state.path} is not let go of, its server does not answer: ${remedy}`);
  }
  await deleteDevice(control, id, LIMIT_MS);
  await waitUntilGone(id);
  if (written < 0) {
    throw new UserError(
      `${state.path} was disconnected, but not all data could be written to it (${errorText(-written)}): check it`,
    );
  }
}

async function waitUntilGone(id: number): Promise<void> {
  const deadline = performance.now() + LIMIT_MS;
  while (existsSync(`/sys/class/ublk-char/ublkc${id}`)) {
    if (performance.now() > deadline)
      throw new UserError(
        `/dev/${blockName(id)} is stopped, but the driver keeps it: see "fuser /dev/ublkc${id}"`,
      );
    await Bun.sleep(POLL_MS);
  }
}
