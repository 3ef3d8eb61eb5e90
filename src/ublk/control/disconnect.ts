/** Detaches /dev/ublkbN, whichever program serves it. */
import { existsSync } from "node:fs";
import { UserError } from "../../errors.ts";
import { errorText } from "../../libc/errno.ts";
import { close } from "../../libc/file.ts";
import { claimUnused } from "../../nodes/claim.ts";
import type { NodeState } from "../../nodes/node-state.ts";
import { useOf } from "../../nodes/node-use.ts";
import { isPrivileged } from "../../nodes/privileges.ts";
import { writeBack } from "../../nodes/write-back.ts";
import { errno } from "../../uapi/errno.ts";
import { Control } from "./control.ts";
import { deleteDevice, stopDevice } from "./end.ts";
import { blockName, deviceInfo, ublkNodeState } from "../nodes.ts";

/** How long server and driver may take to release the device, in milliseconds: there may be much to write. */
const LIMIT_MS = 10_000;
const POLL_MS = 20;

/** Returns when the device is gone. @throws UserError if it stays, or data was lost. */
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
  const found = await deviceInfo(control, id);
  if (found === undefined) return;
  const state = ublkNodeState(id, found);
  const { name, path, pid } = state;
  const use = force || !state.waiting ? undefined : useOf(state);
  // Not unmounted here: that would wait for the server, too.
  if (use !== undefined)
    throw new UserError(
      `${path} is ${use.how} and waits for its server: run "tsbuse recover" first, or cut it off with --force`,
    );
  // Held until it is stopped, so that nobody starts to use it meanwhile. A dead device has no node.
  const claimed = force ? -errno.ENOENT : await claimUnused(name, pid);
  if (claimed < 0 && claimed !== -errno.ENOENT && claimed !== -errno.ENXIO)
    throw new UserError(`${path} cannot be opened: ${errorText(-claimed)}`);
  let written: number;
  try {
    const now = await deviceInfo(control, id);
    // Somebody else has removed it meanwhile, and its number may belong to another device by now.
    if (now === undefined || now.stamp !== found.stamp) return;
    written = await stop(control, id, ublkNodeState(id, now), force);
  } finally {
    if (claimed >= 0) close(claimed);
  }
  // Its server deletes it, too; afterwards the number is free.
  const left = await deviceInfo(control, id);
  if (left !== undefined && left.stamp === found.stamp) await deleteDevice(control, id, LIMIT_MS);
  await waitUntilGone(id);
  if (written < 0) {
    throw new UserError(
      `${path} was disconnected, but not all data could be written to it (${errorText(-written)}): check it`,
    );
  }
}

/** Returns 0, or the -errno of the failed write-back. @throws UserError if its server does not answer */
async function stop(control: Control, id: number, state: NodeState, force: boolean): Promise<number> {
  // Nobody answers in place of a dead server: what it did not take was lost before.
  const written = force || !state.attached ? 0 : await writeBack(state.name);
  if ((await stopDevice(control, id, LIMIT_MS)) !== -errno.ETIMEDOUT) return written;
  const remedy = state.pid === undefined ? 'see "dmesg"' : `end it with "kill -9 ${state.pid}"`;
  throw new UserError(`${state.path} is not let go of, its server does not answer: ${remedy}`);
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
