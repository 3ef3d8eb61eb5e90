/**
 * Waiting on a thread that we own: in a receive while there is only one member, else in poll(2). A signal ends either.
 * The event loop gets short turns: every 50 ms under load, and when there is nothing to do.
 *
 * Devices may return promises. This waits for those that a {@link Waker} settles, or that settle by themselves. If a
 * promise needs the event loop, it hands over to the other way of waiting.
 */
import { drainMicrotasks } from "bun:jsc";
import { PollTable } from "../../libc/poll.ts";
import { countWakes, pushWakers, wakeFound } from "../../libc/waker.ts";
import { HaltPoll } from "../../serving/halt-poll.ts";
import { eventLoopTurn } from "./event-loop.ts";
import { POLLIN } from "../../uapi/poll.ts";
import type { Member, Members } from "./member.ts";

/** The maximum wait while the event loop expects something, in milliseconds. */
const ALERT_MS = 10;
/** The maximum wait otherwise. A signal ends the wait at once, unless it comes just before it. */
const IDLE_MS = 500;
/** The event loop gets its turn after this long, in milliseconds. */
const TURN_MS = 50;
/** How long one of several members is served before the next, in milliseconds. */
const SHARE_MS = 2;
/** The maximum of wakers to wait for beside the members; the event loop gets the rest. */
const WAKERS_MAX = 16;

/** How {@link BlockingWait.run} ended. */
export type BlockingEnd = "stopped" | "event loop needed";

export class BlockingWait {
  watchful = true;
  readonly #members: Members;
  readonly #poll: HaltPoll;
  #table = new PollTable(64);
  #stopped = false;
  /** The device was waited for, and the wait brought nothing. */
  #inVain = false;
  #eventLoopNeeded = false;
  /** The index of the member to serve first. */
  #first = 0;

  /** @param busyPollMs see {@link HaltPoll}. */
  constructor(members: Members, busyPollMs: number | undefined) {
    this.#members = members;
    this.#poll = new HaltPoll(busyPollMs);
  }

  async run(): Promise<BlockingEnd> {
    while (!this.#stopped) {
      this.#turn(performance.now() + TURN_MS);
      if (this.#eventLoopNeeded) return "event loop needed";
      const wakes = countWakes();
      await eventLoopTurn();
      // No waker brought the answer, so the event loop did.
      if (this.#inVain && countWakes() === wakes && this.#members.hasAnswered) return "event loop needed";
      this.#inVain = false;
    }
    return "stopped";
  }

  stop(): void {
    this.#stopped = true;
  }

  /** Serves until the event loop is due. */
  #turn(until: number): void {
    while (!this.#stopped && performance.now() < until) {
      const alone = this.#alone();
      if (alone !== undefined && !this.#serveAlone(alone, until)) {
        // Others may want to join, however busy this one is.
        if (this.#members.list.length > 1) this.#serveWaiting(until, false);
        return;
      }
      if (!this.#serveWaiting(until, true)) return;
    }
  }

  /** The member that is not patient, if there is exactly one. */
  #alone(): Member | undefined {
    const { list } = this.#members;
    let alone: Member | undefined;
    for (let index = 0; index < list.length; index += 1) {
      const member = list[index];
      if (member?.await === undefined) continue;
      if (alone !== undefined) return undefined;
      alone = member;
    }
    return alone;
  }

  /**
   * Serves a member as long as it has news. Returns false when the event loop is due; true when other members are, or
   * when this one needs another way of waiting.
   */
  #serveAlone(member: Member, until: number): boolean {
    const { changes, list } = this.#members;
    for (let now = performance.now(); now < until; now = performance.now()) {
      member.step(until - now);
      if (this.#stopped) return false;
      if (this.#members.changes !== changes) return true;
      if (member.isReady) continue;
      if (member.waitsForDevice || member.events !== POLLIN) return true;
      const awaited = member.await?.(true);
      if (awaited === "elsewhere") return true;
      if (awaited === "signal") return false;
      if (awaited === "silence") return list.length > 1;
    }
    return false;
  }

  /**
   * Serves members that have something to do, as far as time allows. Returns false if none had, or a signal came.
   * @param wait for the first of them.
   */
  #serveWaiting(until: number, wait: boolean): boolean {
    const { list } = this.#members;
    const count = list.length;
    const timeout = this.#fill();
    const found = this.#wait(wait ? timeout : 0);
    if (found < 0 || this.#eventLoopNeeded) return false;
    // Wake devices first: what settles then is answered in this turn.
    let isBusy = wakeFound(this.#table, count) > 0;
    if (isBusy) drainMicrotasks();
    for (let step = 0; step < count; step += 1) {
      const index = (this.#first + step) % count;
      const member = list[index];
      if (member === undefined || (this.#table.found(index) === 0 && !member.isReady)) continue;
      member.step(SHARE_MS);
      isBusy = true;
      if (performance.now() < until) continue;
      // The members after this one come first next time.
      this.#first = index + 1;
      break;
    }
    this.#members.compact();
    return isBusy;
  }

  /**
   * Fills the table with all members that can be waited for, then with wakers. Returns how long to wait, in
   * milliseconds.
   */
  #fill(): number {
    const { list } = this.#members;
    const count = list.length;
    let timeout = this.watchful ? ALERT_MS : IDLE_MS;
    let waitsForDevice = false;
    if (this.#table.capacity < count + WAKERS_MAX) this.#table = new PollTable(2 * (count + WAKERS_MAX));
    const table = this.#table;
    table.clear();
    for (let index = 0; index < count; index += 1) {
      const member = list[index];
      const events = member?.events ?? 0;
      // poll(2) ignores an entry of -1.
      table.push(events === 0 || member === undefined ? -1 : member.fd, events);
      if (member?.isReady === true) timeout = 0;
      else if (member?.waitsForDevice === true) waitsForDevice = true;
    }
    pushWakers(table);
    if (!waitsForDevice || timeout === 0) return timeout;
    this.#inVain = true;
    this.#eventLoopNeeded = table.count === count;
    return this.#eventLoopNeeded ? 0 : ALERT_MS;
  }

  /** Polls repeatedly for a while, where that pays, before it waits. Returns what {@link PollTable.wait} does. */
  #wait(timeout: number): number {
    const table = this.#table;
    const started = performance.now();
    const until = started + Math.min(timeout, this.#poll.limitMs);
    let found = 0;
    while (found === 0 && performance.now() < until) found = table.wait(0);
    const slept = found === 0;
    if (slept) found = table.wait(timeout);
    if (found <= 0) return found;
    this.#inVain = false;
    if (timeout > 0) this.#poll.waited(performance.now() - started, slept);
    return found;
  }
}
