/**
 * Waiting beside the event loop, which remains free for timers, sockets and whatever else a program does. A turn serves
 * all members with news for a few milliseconds, and a little longer if the next request is about to come. Then a
 * {@link Poller} starts the next turn.
 */
import { drainMicrotasks } from "bun:jsc";
import { POLLIN, POLLOUT } from "../../uapi/poll.ts";
import type { Member, Members } from "./member.ts";
import { makePoller, type Poller } from "./poller.ts";

/** The length of a turn while there is something to do, in milliseconds. */
const TURN_MS = 5;
/** How long one of several members is served before the next, in milliseconds. */
const SHARE_MS = 2;

/** A member, and the events it is watched for. */
class Watched {
  isInputWatched = false;
  isOutputWatched = false;
  hasNews = true;

  /** @param key the poller's key for its input; the key for its output is one more. */
  constructor(
    readonly member: Member,
    readonly key: number,
  ) {}
}

export class EventedWait {
  readonly #members: Members;
  readonly #over = Promise.withResolvers<void>();
  #watched: Watched[] = [];
  readonly #byKey = new Map<number, Watched>();
  #poller: Poller | undefined;
  #key = 0;
  #changes = -1;
  #turnDue = false;
  #stopped = false;
  /** The index of the member to serve first. */
  #first = 0;

  constructor(members: Members) {
    this.#members = members;
  }

  /** Serves until {@link stop}. */
  async run(): Promise<void> {
    this.#poller = await makePoller(() => this.#turn());
    try {
      this.wake();
      await this.#over.promise;
    } finally {
      const poller = this.#poller;
      this.#poller = undefined;
      await poller.close();
    }
  }

  /** Call it if there is something to do although no socket has news. */
  wake(): void {
    if (this.#turnDue) return;
    this.#turnDue = true;
    setImmediate(() => {
      this.#turnDue = false;
      this.#turn();
    });
  }

  stop(): void {
    this.#stopped = true;
    this.#over.resolve();
  }

  /** Call it before the member's socket is closed. */
  forget(member: Member): void {
    const watched = this.#watched.find((each) => each.member === member);
    if (watched === undefined || this.#poller === undefined) return;
    if (watched.isInputWatched) this.#poller.forget(watched.key);
    if (watched.isOutputWatched) this.#poller.forget(watched.key + 1);
    this.#byKey.delete(watched.key);
  }

  #turn(): void {
    const poller = this.#poller;
    if (this.#stopped || poller === undefined) return;
    try {
      const until = performance.now() + TURN_MS;
      this.#takeNews(poller);
      let isMore: boolean;
      do isMore = this.#serve(until);
      while (isMore && !this.#stopped && performance.now() < until);
      if (this.#stopped) return;
      this.#watch(poller);
      const isTaken = poller.submit();
      if (this.#takeNews(poller) || isMore || !isTaken) this.wake();
    } catch (error) {
      this.#stopped = true;
      this.#over.reject(error);
    }
  }

  /** Serves all members with news once, as far as time allows. Returns whether there may be more to do at once. */
  #serve(until: number): boolean {
    this.#greet();
    const watched = this.#watched;
    let isBusy = false;
    for (let index = 0; index < watched.length; index += 1) {
      const each = watched[(this.#first + index) % watched.length];
      if (each === undefined || !(each.hasNews || each.member.isReady)) continue;
      each.hasNews = false;
      each.member.step(SHARE_MS);
      isBusy = true;
      if (performance.now() < until) continue;
      // The members after this one come first in the next turn.
      this.#first = (this.#first + index + 1) % watched.length;
      return true;
    }
    drainMicrotasks();
    return this.#members.hasReady || (isBusy && this.#askOn());
  }

  /** Whether the only member has news before sleeping would pay. */
  #askOn(): boolean {
    let alone: Watched | undefined;
    for (const each of this.#watched) {
      if (each.member.await === undefined) continue;
      if (alone !== undefined) return false;
      alone = each;
    }
    if (alone === undefined || alone.member.waitsForDevice || alone.member.events !== POLLIN) return false;
    alone.hasNews = alone.member.await?.(false) === "news";
    return alone.hasNews;
  }

  /** Notices members that have come or gone. */
  #greet(): void {
    if (this.#changes === this.#members.changes) return;
    this.#changes = this.#members.changes;
    this.#members.compact();
    const known = new Map(this.#watched.map((each) => [each.member, each]));
    this.#watched = this.#members.list.flatMap((member) => {
      if (member === undefined) return [];
      const found = known.get(member);
      if (found !== undefined) return [found];
      this.#key = (this.#key + 2) % 2 ** 30;
      const watched = new Watched(member, this.#key);
      this.#byKey.set(watched.key, watched);
      return [watched];
    });
  }

  #watch(poller: Poller): void {
    this.#greet();
    for (const each of this.#watched) {
      const { events, fd } = each.member;
      if ((events & POLLIN) !== 0 && !each.isInputWatched) {
        poller.watch(each.key, fd, POLLIN);
        each.isInputWatched = true;
      }
      if ((events & POLLOUT) !== 0 && !each.isOutputWatched) {
        poller.watch(each.key + 1, fd, POLLOUT);
        each.isOutputWatched = true;
      }
    }
  }

  /** Returns whether there was any news. */
  #takeNews(poller: Poller): boolean {
    let hasNews = false;
    for (let key = poller.take(); key >= 0; key = poller.take()) {
      const isOutput = key % 2 === 1;
      const watched = this.#byKey.get(isOutput ? key - 1 : key);
      if (watched === undefined) continue;
      if (isOutput) watched.isOutputWatched = false;
      else watched.isInputWatched = false;
      watched.hasNews = true;
      hasNews = true;
    }
    return hasNews;
  }
}
