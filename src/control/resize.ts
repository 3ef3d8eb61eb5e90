/**
 * The command `resize`: changes the size of a device in use. Users must not learn of bytes before the device has them,
 * and the device must not give up bytes before all users know. So a device grows before its users are told, and shrinks
 * after. A failure half way leaves users with the size that they know.
 */
import type { Dispatch } from "../dispatch.ts";
import { UserError } from "../errors.ts";
import { isInUse } from "../nodes/claim.ts";
import { findUse } from "../nodes/node-use.ts";
import type { Subject } from "./commands.ts";
import type { Message } from "./connection.ts";

/** Devices that are being resized. */
const busy = new WeakSet<Dispatch>();

/** `size` in bytes, absent for the size that the device has now by itself; `force`: shrink it even if it is in use. */
export async function resize(subject: Subject, { size, force }: Message): Promise<Message> {
  const { dispatch } = subject;
  if (size !== undefined && !(typeof size === "number" && Number.isSafeInteger(size) && size > 0))
    throw new UserError(`${JSON.stringify(size)} is not a size: give a number of bytes`);
  mustNotBeResized(subject);
  busy.add(dispatch);
  try {
    return { size: await change(subject, size, force === true) };
  } finally {
    busy.delete(dispatch);
  }
}

/** @throws UserError when it is. */
export function mustNotBeResized({ dispatch, transport }: Subject): void {
  if (busy.has(dispatch))
    throw new UserError(`${transport.path} is being resized: try again when that is done`);
}

async function change({ dispatch, transport }: Subject, size: number | undefined, force: boolean) {
  const { path } = transport;
  const { size: before, blockSize } = dispatch;
  if (!dispatch.canResize)
    throw new UserError(`${path} cannot be resized: its device, or a layer before it, keeps its size`);
  if (size !== undefined && size % blockSize !== 0)
    throw new UserError(
      `${size} bytes are not a whole number of blocks of ${blockSize}: give ${Math.ceil(size / blockSize) * blockSize}`,
    );
  await transport.checkResizable();
  return size !== undefined && size < before ? shrink(size) : grow();

  async function grow(): Promise<number> {
    const after = await dispatch.resizeDevice(size);
    if (after < before)
      throw new UserError(`${path} has become smaller by itself: give SIZE, ${after}, for its users to know`);
    if (after === before) return before;
    // Its users ask for more as soon as they know, which may be before the driver says that it is done.
    dispatch.size = after;
    try {
      await transport.showSize(after);
    } catch (error) {
      dispatch.size = before;
      throw error;
    }
    return after;
  }

  async function shrink(to: number): Promise<number> {
    const use = force ? undefined : await useOf(path);
    if (use !== undefined)
      throw new UserError(
        `${path} is ${use}: end that first, or lose what lies beyond ${to} bytes, with --force`,
      );
    await transport.showSize(to);
    dispatch.size = to;
    await dispatch.resizeDevice(to);
    return to;
  }
}

/** How it is used, as the rest of a sentence; undefined if it is not in use. */
async function useOf(path: string): Promise<string | undefined> {
  const name = /^\/dev\/(\w+)$/.exec(path)?.[1];
  if (name === undefined) return "perhaps in use by clients that know its size";
  return findUse(name)?.how ?? ((await isInUse(path)) ? "in use" : undefined);
}
