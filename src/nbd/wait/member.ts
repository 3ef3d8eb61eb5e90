/**
 * How a wait in a receive ended: there is something to do; there is nothing; a signal ended it; a receive cannot wait
 * for this member now.
 */
export type Awaited = "news" | "silence" | "signal" | "elsewhere";

/** Something to wait for and serve in turns: the listener of a server, one of its clients, a connection to a node. */
export interface Member {
  /** A socket, the member's as long as it is one. */
  readonly fd: number;
  /** What to watch the socket for: POLL flags; 0 if no event would matter now. */
  readonly events: number;
  /** There is something to do although the socket has no news. */
  readonly isReady: boolean;
  /** The device has returned promises, which only it, or the event loop, can settle. */
  readonly waitsForDevice: boolean;
  /** Does what there is to do, for up to `limitMs`; never waits. */
  step(limitMs: number): void;
  /**
   * Waits for the socket in a receive: for a member that is alone, after a step. Absent: the member is patient, and
   * gets its turn when the others are quiet.
   * @param sleep false: it only polls for a while, where that pays.
   */
  await?(sleep: boolean): Awaited;
}

/** The members to wait for. The list may change at any time, even while somebody goes through it. */
export class Members {
  /** One that has gone leaves a hole until {@link compact}. */
  readonly list: (Member | undefined)[] = [];
  /** Counts the members that have come or gone. */
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
