/**
 * How a wait by a receive ended: there is something to do; there is nothing; a signal ended it; this member cannot be
 * waited for in this way now.
 */
export type Awaited = "news" | "silence" | "signal" | "elsewhere";

/** What is waited for and served in turns: the listener of a server, one of its clients, the kernel's end of a node. */
export interface Member {
  /** A socket, the member's as long as it is one. */
  readonly fd: number;
  /** What the socket is watched for: POLL flags; 0 when nothing that it could say is of use now. */
  readonly events: number;
  /** There is something to do though the socket has no news. */
  readonly isReady: boolean;
  /** The device has promised answers: only it, or the event loop, can bring them. */
  readonly waitsForDevice: boolean;
  /** Does what there is to do, for up to `limitMs`; never waits. */
  step(limitMs: number): void;
  /**
   * A wait for the socket, by a receive: for a member that is alone, after a step. Absent: the member is patient, and
   * is looked after when the others say nothing.
   * @param sleep false: it only asks over and over for a while, where that pays.
   */
  await?(sleep: boolean): Awaited;
}

/** Those who are waited for. It may change at any time, also while somebody goes through the list. */
export class Members {
  /** One that has gone leaves a hole until {@link compact}. */
  readonly list: (Member | undefined)[] = [];
  /** How often somebody has come or gone. */
  changes = 0;
  #hasHoles = false;

  add(member: Member): void {
    this.list.push(member);
    this.changes += 1;
  }

  remove(member: Member): void {
    const index = this.list.indexOf(member);
    if (index < 0) return;
    this.list[index] = undefined;
    this.#hasHoles = true;
    this.changes += 1;
  }

  /** Closes the holes: nobody may be going through the list. */
  compact(): void {
    if (!this.#hasHoles) return;
    this.#hasHoles = false;
    let end = 0;
    for (const member of this.list) {
      if (member === undefined) continue;
      this.list[end] = member;
      end += 1;
    }
    this.list.length = end;
  }

  /** Whether somebody has something to do. */
  get hasReady(): boolean {
    for (const member of this.list) if (member?.isReady === true) return true;
    return false;
  }

  /** Whether a device has answered somebody. */
  get hasAnswered(): boolean {
    for (const member of this.list) if (member?.waitsForDevice === true && member.isReady) return true;
    return false;
  }
}
