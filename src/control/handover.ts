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
  /** It is all of the device's data, which has no other place, and not only a means. */
  readonly isData: boolean;
  /** Descriptors of this process, by their names. */
  readonly fds: Readonly<Record<string, number>>;
  readonly facts: Message;
}

/** Whose turn it is, by the end of its connection. */
const takers = new WeakMap<Subject, AbortSignal>();

export function beginHandover(subject: Subject, request: Message, { gone, stay }: Asker): Message {
  const { transport, heirloom, runsCommand } = subject;
  if (request["protocol"] !== PROTOCOL)
    throw new UserError(`${transport.path} is handed over in another way by its process: use that version`);
  if (runsCommand)
    throw new UserError(
      `${transport.path} cannot be handed over: its process waits for the command of --run`,
    );
  handoverOf(subject);
  mustNotBeTaken(subject);
  mustNotBeResized(subject);
  takers.set(subject, gone);
  stay();
  return { protocol: PROTOCOL, ...(heirloom !== undefined && { heirloom }) };
}

export async function release(subject: Subject, _: Message, { gone }: Asker): Promise<Message> {
  mustBeTaker(subject, gone);
  const handover = handoverOf(subject);
  const how = await handover.letGo();
  if (gone.aborted) handover.takeBack();
  // This process ends once the answer is out: its device waits for another one, whoever that is.
  else if (how === "leaves") setImmediate(() => handover.handedOn());
  else gone.addEventListener("abort", () => handover.takeBack());
  return { how };
}

export function done(subject: Subject, _: Message, { gone }: Asker): Message {
  mustBeTaker(subject, gone);
  handoverOf(subject).handedOn();
  return {};
}

/** @throws UserError when another process is about to serve the device, and knows what it is. */
export function mustNotBeTaken(subject: Subject): void {
  if (takers.get(subject)?.aborted !== false) return;
  throw new UserError(
    `${subject.transport.path} is being taken over by another process: leave it to that one`,
  );
}

function handoverOf({ transport }: Subject): Handover {
  if (transport.handover === undefined)
    throw new UserError(
      `${transport.path} cannot be handed over: only a ublk device can that was attached with --recover, or is a RAM disk with --handover`,
    );
  return transport.handover;
}

function mustBeTaker(subject: Subject, gone: AbortSignal): void {
  if (takers.get(subject) !== gone) throw new UserError(`${subject.transport.path} is not being taken over`);
}
