/** Waiting for a device that has returned promises, beside a socket, without giving up the thread. */
import { drainMicrotasks } from "bun:jsc";
import { PollTable } from "../../libc/poll.ts";
import { pushWakers, wakeFound } from "../../libc/waker.ts";
import { POLLIN } from "../../uapi/poll.ts";

/** The socket, and as many wakers; more are left to the event loop. */
const TABLE_ENTRIES = 16;
/** How long a device is waited for before the event loop gets its turn, in milliseconds: one with a waker, or not. */
const WITH_WAKER_MS = 10;
const WITHOUT_WAKER_MS = 1;
const table = new PollTable(TABLE_ENTRIES);

/** Lets a device hand over what it has put together in this turn, and lets promises settle. */
export function letSettle(): void {
  drainMicrotasks();
}

/**
 * Looks for news of a socket, -1 for none, and of what wakes devices, and lets promises settle.
 * @param wait a little while for the first of them; a signal ends that.
 */
export function waitForDevice(socket: number, wait: boolean): "socket" | "device" | "nothing" {
  table.clear();
  table.push(socket, POLLIN);
  pushWakers(table);
  const milliseconds = table.count === 1 ? WITHOUT_WAKER_MS : WITH_WAKER_MS;
  const found = table.wait(wait ? milliseconds : 0);
  if (found > 0) wakeFound(table, 1);
  letSettle();
  if (found <= 0) return "nothing";
  return table.found(0) === 0 ? "device" : "socket";
}
