/**
 * Handing a device on while it is in use, for the process that has it. Who takes it asks in three steps, all by one
 * connection, whose end before the last step undoes what was done:
 *
 *     begin     what goes along is told. Nothing is changed.
 *     release   what is in flight is answered, and the driver let go of. Requests wait.
 *     done      the other process serves. This one ends.
 *
 * The point of no return is the answer to "release" where this process "leaves", else "done".
 */
import { UserError } from "../errors.ts";
import type { Handover } from "../transport.ts";
import type { Subject } from "./commands.ts";
import type { Asker, Message } from "./connection.ts";
import { mustNotBeResized } from "./resize.ts";

/** Of these steps, and of what goes along. */
export const PROTOCOL = 1;

/** What a device leaves to whoever serves it next. */
export interface Heirloom {
  /** `ramdisk`: who can make something of it. */
  readonly kind: string;
  /** It is all of the device's data that has no other place, and not only a means. */
  readonly isData: boolean;
  /** Descriptors of this process, by their names. */
  readonly fds: Readonly<Record<string, number>>;
  readonly facts: Message;
}

/** Whose turn it is: its connection, and its process ID, if it is to be the main one of our service. */
const takers = new WeakMap<Subject, { readonly gone: AbortSignal; readonly pid: unknown }>();

export function beginHandover(subject: Subject, request: Message, { gone, stay }: Asker): Message {
  const { transport, heirloom, runsCommand } = subject;
  if (request["protocol"] !== PROTOCOL)
    throw new UserError(`${transport.path} is handed over in another way by its process: use that version`);
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
  // Also while what is in flight is waited for, of a device that does not answer.
  gone.addEventListener("abort", takeBack);
  try {
    const how = await handover.letGo();
    // This process ends once the answer is out: its device waits for another one, whoever that is.
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

/** @throws UserError when another process is about to serve the device, and knows what it is. */
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
  // It has not waited for the answer: the device is served here, or is again, and nobody would give it back.
  if (gone.aborted) throw new UserError(`${path} was taken back`);
}
