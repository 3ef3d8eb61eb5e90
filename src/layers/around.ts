/** What layers have in common: they pass on whatever they do not change. */
import type { BlockDevice } from "../device.ts";
import { ErrnoError, errnoOf, messageOf } from "../errors.ts";
import { adopt, adoptDone } from "../values/promise.ts";

/** The methods that carry a request, by their names in options and output. */
export const COMMANDS = ["read", "write", "flush", "trim", "zero"] as const;
export type Command = (typeof COMMANDS)[number];

/** One call of a method of a device. */
export interface Request {
  readonly command: Command;
  /** Bytes, as the length; both are 0 for a flush. */
  readonly offset: number;
  readonly length: number;
  readonly fua: boolean;
}

/** What a method of a device returns. */
export type Done = void | Promise<void>;

/** Does something before and after a request; `proceed` passes it on to the device below. */
export type Advice = (request: Request, proceed: () => Done) => Done;

/** Continues when `done` is done: at once if possible, so that a synchronous device stays synchronous. */
export function whenDone(done: Done, next: () => Done): Done {
  const adopted = adoptDone(done);
  return adopted === undefined ? next() : adopted.then(next);
}

/** Done when all are done or have failed; fails if one of them has. */
export async function allDone(pending: readonly Promise<void>[]): Promise<void> {
  const results = await Promise.allSettled(pending);
  for (const result of results) if (result.status === "rejected") throw result.reason;
}

/** What a device is, and how to make it ready: everything but its other methods and its memory. */
export function shapeOf(
  device: BlockDevice,
): Pick<BlockDevice, "size" | "blockSize" | "rotational" | "fua" | "prepare"> {
  const { size, blockSize, rotational, fua } = device;
  const prepare = device.prepare?.bind(device);
  return {
    size,
    ...(prepare !== undefined && { prepare }),
    ...(blockSize !== undefined && { blockSize }),
    ...(rotational !== undefined && { rotational }),
    ...(fua !== undefined && { fua }),
  };
}

/** The identity of a device behind a layer: the same only if both the device and the layer are. */
export function identityBehind(layer: string, { identity }: BlockDevice): Pick<BlockDevice, "identity"> {
  return identity === undefined ? {} : { identity: `${layer}+${identity}` };
}

/**
 * Closes the device and then what the layer owns, even if the device fails to close. A second call does nothing. The
 * device's error takes precedence over that of `own`.
 */
export function closeOnce(device: BlockDevice, own: () => Done = () => undefined): () => Done {
  let closed = false;
  return () => {
    if (closed) return undefined;
    closed = true;
    let done: Done;
    try {
      done = adopt(device.close?.());
    } catch (error) {
      return failedClosing(error, own);
    }
    return done instanceof Promise ? done.then(own, (error: unknown) => failedClosing(error, own)) : own();
  };
}

/** Throws `failure` once `own` is done. If that fails too, the error names both. */
function failedClosing(failure: unknown, own: () => Done): Done {
  const fail = (): never => {
    throw failure;
  };
  const failBoth = (other: unknown): never => {
    throw new ErrnoError(errnoOf(failure), `${messageOf(failure)}; ${messageOf(other)}`, { cause: failure });
  };
  let done: Done;
  try {
    done = adopt(own());
  } catch (other) {
    return failBoth(other);
  }
  return done instanceof Promise ? done.then(fail, failBoth) : fail();
}

/**
 * The device with `advice` around each of its requests. A method that is absent stays absent. A memory window is
 * hidden, because the advice would not see what goes through it. `ownClose` is called once, when the device is closed.
 * A request that the advice holds until then fails with EIO, because a closed device must not be called.
 * @param layer its name.
 */
export function around(
  layer: string,
  device: BlockDevice,
  advice: Advice,
  ownClose?: () => Done,
): BlockDevice {
  const flush = device.flush?.bind(device);
  const extents = device.extents?.bind(device);
  const resize = device.resize?.bind(device);
  const close = closeOnce(device, ownClose);
  let isClosed = false;
  const whileOpen: Advice = (request, proceed) =>
    advice(request, () => {
      if (isClosed) throw new ErrnoError("EIO", "the device is closed");
      return proceed();
    });
  return {
    ...shapeOf(device),
    ...identityBehind(layer, device),
    ...(resize !== undefined && { resize }),
    get size() {
      return device.size;
    },
    read: (target, offset) =>
      whileOpen({ command: "read", offset, length: target.length, fua: false }, () =>
        device.read(target, offset),
      ),
    ...aroundChanges(device, whileOpen),
    ...(flush !== undefined && {
      flush: () => whileOpen({ command: "flush", offset: 0, length: 0, fua: false }, flush),
    }),
    ...(extents !== undefined && { extents }),
    close: () => {
      isClosed = true;
      return close();
    },
  };
}

/** Copies the options, since the caller reuses the object and an advice may proceed later. */
function aroundChanges(
  device: BlockDevice,
  advice: Advice,
): Pick<BlockDevice, "write" | "trim" | "writeZeroes"> {
  const write = device.write?.bind(device);
  const trim = device.trim?.bind(device);
  const writeZeroes = device.writeZeroes?.bind(device);
  return {
    ...(write !== undefined && {
      write: (source, offset, { fua }) =>
        advice({ command: "write", offset, length: source.length, fua }, () =>
          write(source, offset, { fua }),
        ),
    }),
    ...(trim !== undefined && {
      trim: (offset, length, { fua }) =>
        advice({ command: "trim", offset, length, fua }, () => trim(offset, length, { fua })),
    }),
    ...(writeZeroes !== undefined && {
      writeZeroes: (offset, length, { fua, mayTrim }) =>
        advice({ command: "zero", offset, length, fua }, () => writeZeroes(offset, length, { fua, mayTrim })),
    }),
  };
}
