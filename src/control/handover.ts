/**
 * Hands over a device in use: the side of the process that serves it. The process that takes it over sends three
 * requests over one connection. If the connection ends before the last one, everything is undone.
 *
 *     begin     This process names what it hands over. Nothing changes.
 *     release   It answers the requests in flight and releases the driver. New requests wait.
 *     done      The other process serves. This one ends.
 *
 * The point of no return is the answer to "release" where this process "leaves", else "done".
 */
import { UserError } from "../errors.ts";
import type { Handover } from "../transport.ts";
import type { Subject } from "./commands.ts";
import type { Asker, Message } from "./connection.ts";
import { mustNotBeResized } from "./resize.ts";

/** The version of these steps and of what is handed over. */
export const PROTOCOL = 1;

/** What a device passes to the next process that serves it. */
export interface Heirloom {
  /** The kind of device that can use it, such as `ramdisk`. */
  readonly kind: string;
  /** Whether it is the only copy of the device's data, and not just an aid. */
  readonly isData: boolean;
  /** Descriptors of this process, by name. */
  readonly fds: Readonly<Record<string, number>>;
  readonly facts: Message;
}

/** The process that takes over: its connection, and its ID if it becomes the main process of our service. */
const takers = new WeakMap<Subject, { readonly gone: AbortSignal; readonly pid: unknown }>();

export function beginHandover(subject: Subject, request: Message, { gone, stay }: Asker): Message {
  const { transport, heirloom, runsCommand } = subject;
  if (request["protocol"] !== PROTOCOL)
    throw new UserError(
      `${transport.path} is served by a version with another handover protocol: use that version`,
    );
  if (runsCommand)
    throw new UserError(
      `${transport.path} cannot be handed over: its process waits for the command of --run`,
    );
  mustNotBeTaken(subject);
  mustNotBeResized(subject);
  const { fds } = handoverOf(subject);
  takers.set(subject, { gone, pid: request["pid"] });
  stay();
  const { identity } = subject.dispatch;
  const notifySocket = process.env["NOTIFY_SOCKET"];
  return {
    protocol: PROTOCOL,
    fds,
    ...(identity !== undefined && { identity }),
    ...(notifySocket !== undefined && { notifySocket }),
    ...(heirloom !== undefined && { heirloom }),
  };
}

export async function release(subject: Subject, _: Message, { gone }: Asker): Promise<Message> {
  mustBeTaker(subject, gone);
  const handover = handoverOf(subject);
  const takeBack = (): void => handover.takeBack();
  // Also during the wait for requests in flight, because the device may never answer them.
  gone.addEventListener("abort", takeBack);
  try {
    const how = await handover.letGo();
    // This process ends once it has sent the answer: its device then waits for any other process.
    if (how === "leaves") setImmediate(() => handOn(subject));
    return { how };
  } catch (error) {
    gone.removeEventListener("abort", takeBack);
    throw error;
  }
}

export function done(subject: Subject, _: Message, { gone }: Asker): Message {
  mustBeTaker(subject, gone);
  handOn(subject);
  return {};
}

function handOn(subject: Subject): void {
  const taker = takers.get(subject);
  if (typeof taker?.pid === "number" && !taker.gone.aborted) subject.onHandedOn?.(taker.pid);
  handoverOf(subject).handedOn();
}

/** @throws UserError if another process is taking over the device as it is now. */
export function mustNotBeTaken(subject: Subject): void {
  if (takers.get(subject)?.gone.aborted !== false) return;
  throw new UserError(
    `${subject.transport.path} is being taken over by another process: leave it to that one`,
  );
}

function handoverOf({ transport }: Subject): Handover {
  if (transport.handover === undefined)
    throw new UserError(
      `${transport.path} cannot be handed over: attach it with --recover, or a RAM disk or cow in memory with --handover`,
    );
  return transport.handover;
}

function mustBeTaker(subject: Subject, gone: AbortSignal): void {
  const { path } = subject.transport;
  if (takers.get(subject)?.gone !== gone) throw new UserError(`${path} is not being taken over`);
  // It did not wait for the answer: this process still or again serves the device, and nobody would give it back.
  if (gone.aborted) throw new UserError(`${path} was taken back`);
}
