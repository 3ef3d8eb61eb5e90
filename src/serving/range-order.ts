/**
 * The order among requests that touch the same bytes. A request that changes data waits for every earlier one that
 * overlaps it, and a read waits for earlier changes; all others go ahead at once. One order stands before a device,
 * whatever the number of connections, so that a device never has two overlapping requests in flight of which one
 * changes data.
 */

/** A request as far as its order is concerned. The fields after `changes` are the order's own. */
export interface Ranged {
  /** Bytes: the range is from `start` to before `end`. */
  readonly start: number;
  readonly end: number;
  /** False for a read. */
  readonly changes: boolean;
  /** Its place among those that are in flight or waiting, -1 while it is neither. */
  place: number;
  /** How many earlier ones it waits for. */
  blockers: number;
  /** Later ones that wait for it. */
  followers: Ranged[] | undefined;
  /** Called once, when the last of the blockers is gone. */
  proceed(): void;
}

/** 128 clients with a queue depth of 128 each. */
const ENTRIES_MAX = 128 * 128;

export class RangeOrder {
  readonly #entries: Ranged[] = [];
  readonly #ready: Ranged[] = [];
  #proceeding = false;

  /** How many are in flight or waiting. */
  get size(): number {
    return this.#entries.length;
  }

  /** Whether there are more than any number of clients could have in flight: the device answers nothing. */
  get isFull(): boolean {
    return this.#entries.length >= ENTRIES_MAX;
  }

  /** Whether `entry` may go ahead now. If it does, and takes its time, it is to be {@link insert}ed. */
  isFree(entry: Ranged): boolean {
    for (const other of this.#entries) if (conflicts(entry, other)) return false;
    return true;
  }

  /** Later ones are held against `entry`, which is in flight. */
  insert(entry: Ranged): void {
    entry.place = this.#entries.length;
    this.#entries.push(entry);
  }

  /** As {@link insert}, for an entry that is not free: `proceed` is called once it is. */
  wait(entry: Ranged): void {
    entry.blockers = 0;
    for (const other of this.#entries) {
      if (!conflicts(entry, other)) continue;
      entry.blockers += 1;
      (other.followers ??= []).push(entry);
    }
    this.insert(entry);
  }

  /** The entry is done; those that waited for nothing else go ahead. */
  remove(entry: Ranged): void {
    const last = this.#entries.pop();
    if (last !== undefined && last !== entry) {
      this.#entries[entry.place] = last;
      last.place = entry.place;
    }
    entry.place = -1;
    const { followers } = entry;
    if (followers === undefined) return;
    entry.followers = undefined;
    for (const follower of followers) {
      follower.blockers -= 1;
      if (follower.blockers === 0) this.#ready.push(follower);
    }
    this.#proceed();
  }

  /** One that goes ahead may be done at once and let others go: a loop, so that a long chain costs no stack. */
  #proceed(): void {
    if (this.#proceeding) return;
    this.#proceeding = true;
    try {
      for (let next = this.#ready.shift(); next !== undefined; next = this.#ready.shift()) next.proceed();
    } finally {
      this.#proceeding = false;
    }
  }
}

function conflicts(one: Ranged, other: Ranged): boolean {
  return one.start < other.end && other.start < one.end && (one.changes || other.changes);
}
