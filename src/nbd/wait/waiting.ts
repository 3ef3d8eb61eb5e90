/**
 * Serves members in turns: on a thread that we own until the device turns out to need the event loop, or beside the
 * event loop from the start.
 */
import { BlockingWait } from "./blocking.ts";
import { EventedWait } from "./evented.ts";
import { type Member, Members } from "./member.ts";

export interface WaitOptions {
  /** The thread has nothing else to do, and may sleep in the kernel. Default false: the event loop is left free. */
  readonly ownsThread?: boolean | undefined;
  /** See {@link HaltPoll}. */
  readonly busyPollMs?: number | undefined;
}

export class Waiting {
  readonly #members = new Members();
  #blocking: BlockingWait | undefined;
  readonly #evented = new EventedWait(this.#members);

  constructor({ ownsThread, busyPollMs }: WaitOptions) {
    if (ownsThread === true) this.#blocking = new BlockingWait(this.#members, busyPollMs);
  }

  /** True: the event loop gets a turn every few milliseconds even if there is nothing to do. */
  set watchful(on: boolean) {
    if (this.#blocking !== undefined) this.#blocking.watchful = on;
  }

  /** Serves all members until {@link stop}. */
  async run(): Promise<void> {
    if ((await this.#blocking?.run()) === "stopped") return;
    this.#blocking = undefined;
    await this.#evented.run();
  }

  add(member: Member): void {
    this.#members.add(member);
    this.wake();
  }

  /** Call it before the member's socket is closed. */
  remove(member: Member): void {
    this.#evented.forget(member);
    this.#members.remove(member);
  }

  /** Call it if a member may be ready although its socket has no news. */
  wake(): void {
    if (this.#blocking === undefined) this.#evented.wake();
  }

  stop(): void {
    this.#blocking?.stop();
    this.#evented.stop();
  }
}
