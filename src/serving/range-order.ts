/**
 * The order of requests that touch the same bytes. A request that changes data waits for every earlier one that
 * overlaps it, and a read waits for earlier changes; all others go ahead at once. There is one order for each device,
 * whatever the number of connections, so that a device never has two overlapping requests in flight if one of them
 * changes data.
 *
 * All requests are in one list, by age. A request that must wait is attached to the youngest one in its way, and looks
 * again when that is done. So it is on one list of waiters at a time, however many are in its way. Nothing is
 * allocated.
 */

/** A request as far as its order is concerned. */
export interface Ranged {
  /** Bytes. An empty range conflicts with nothing. */
  readonly offset: number;
  readonly length: number;
  /** False for a read. */
  readonly changes: boolean;
  /** What it is and when it came, for whoever looks: see queues/ledger.ts. */
  readonly kind: number;
  readonly arrived: number;
  readonly place: OrderPlace;
  /** Called once, when nothing is in its way any longer. */
  proceed(): void;
}

/** The place of a request in the order. Made with the request; only the order changes it. */
export class OrderPlace {
  /** It is in flight or waits. */
  isTaken = false;
  older: Ranged | undefined;
  younger: Ranged | undefined;
  /** The requests that wait for it, by age; and the next one in the list of waiters that it is on itself. */
  firstWaiter: Ranged | undefined;
  lastWaiter: Ranged | undefined;
  nextWaiter: Ranged | undefined;
}

/** Learns which request has been in flight, or waiting, for the longest. */
export interface OrderWatcher {
  setOldest(entry: Ranged | undefined): void;
}

/** 128 clients with a queue depth of 128 each. */
export const ENTRIES_MAX = 128 * 128;

export class RangeOrder {
  /** How many are in flight or waiting, and how many of them change data. */
  size = 0;
  #changing = 0;
  #youngest: Ranged | undefined;
  /** The requests that go ahead, linked as waiters are. */
  readonly #ready = new OrderPlace();
  #proceeding = false;

  readonly #watcher: OrderWatcher | undefined;

  /**
   * @param watcher is told whenever another request becomes the oldest.
   * @param entriesMax more requests than can be in flight or waiting if the device answers.
   */
  constructor(
    watcher?: OrderWatcher,
    readonly entriesMax = ENTRIES_MAX,
  ) {
    this.#watcher = watcher;
  }

  /** Whether there are more requests than clients could have in flight: the device does not answer. */
  get isFull(): boolean {
    return this.size >= this.entriesMax;
  }

  /** Whether `entry` may go ahead now. If it does, and is not done at once, {@link insert} it. */
  isFree(entry: Ranged): boolean {
    return this.size === 0 || this.#blocker(entry, this.#youngest) === undefined;
  }

  /** Makes later requests wait for `entry`, which is in flight. */
  insert(entry: Ranged): void {
    const { place } = entry;
    place.isTaken = true;
    place.older = this.#youngest;
    if (place.older === undefined) this.#show(entry);
    else place.older.place.younger = entry;
    this.#youngest = entry;
    this.size += 1;
    if (entry.changes) this.#changing += 1;
  }

  /** As {@link insert}, for an entry that is not free: `proceed` is called once it is. */
  wait(entry: Ranged): void {
    const blocker = this.#blocker(entry, this.#youngest);
    this.insert(entry);
    append(blocker?.place ?? this.#ready, entry);
    if (blocker === undefined) this.#proceed();
  }

  /** The entry is done: requests that waited only for it go ahead. */
  remove(entry: Ranged): void {
    const { place } = entry;
    if (place.older === undefined) this.#show(place.younger);
    else place.older.place.younger = place.younger;
    if (place.younger !== undefined) place.younger.place.older = place.older;
    else this.#youngest = place.older;
    place.older = undefined;
    place.younger = undefined;
    place.isTaken = false;
    this.size -= 1;
    if (entry.changes) this.#changing -= 1;
    for (let waiter = takeFirst(place); waiter !== undefined; waiter = takeFirst(place)) {
      const blocker = this.#blocker(waiter, waiter.place.older);
      append(blocker?.place ?? this.#ready, waiter);
    }
    this.#proceed();
  }

  #show(oldest: Ranged | undefined): void {
    this.#watcher?.setOldest(oldest);
  }

  /** The youngest request that conflicts with `entry`, from `first` to the oldest. */
  #blocker(entry: Ranged, first: Ranged | undefined): Ranged | undefined {
    const { offset, length, changes } = entry;
    if (length === 0 || (!changes && this.#changing === 0)) return undefined;
    const end = offset + length;
    for (let other = first; other !== undefined; other = other.place.older) {
      if (!(changes || other.changes) || other.length === 0) continue;
      if (offset < other.offset + other.length && other.offset < end) return other;
    }
    return undefined;
  }

  /** A request that goes ahead may be done at once and release others: a loop, so that a long chain takes no stack. */
  #proceed(): void {
    if (this.#proceeding) return;
    this.#proceeding = true;
    try {
      for (let next = takeFirst(this.#ready); next !== undefined; next = takeFirst(this.#ready))
        next.proceed();
    } finally {
      this.#proceeding = false;
    }
  }
}

function append(list: OrderPlace, waiter: Ranged): void {
  if (list.lastWaiter === undefined) list.firstWaiter = waiter;
  else list.lastWaiter.place.nextWaiter = waiter;
  list.lastWaiter = waiter;
}

function takeFirst(list: OrderPlace): Ranged | undefined {
  const first = list.firstWaiter;
  if (first === undefined) return undefined;
  list.firstWaiter = first.place.nextWaiter;
  if (list.firstWaiter === undefined) list.lastWaiter = undefined;
  first.place.nextWaiter = undefined;
  return first;
}
