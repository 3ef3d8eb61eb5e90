/** The system's information about ublk devices. */
import { existsSync, readdirSync, readFileSync } from "node:fs";

/** All devices of the driver: their block nodes and their character devices. */
export function devices(): string[] {
  const names = existsSync("/sys/class/ublk-char") ? readdirSync("/sys/class/ublk-char") : [];
  return [...names, ...readdirSync("/dev").filter((name) => name.startsWith("ublkb"))].toSorted();
}

/** Requests of /dev/ublkb0 that are in flight: reads and writes. */
export function inFlight(): string {
  return readFileSync("/sys/block/ublkb0/inflight", "utf8");
}

/** Requests of /dev/ublkb0 that were completed: reads and writes. */
export function completed(): number {
  const fields = readFileSync("/sys/block/ublkb0/stat", "utf8").trim().split(/\s+/).map(Number);
  return (fields[0] ?? 0) + (fields[4] ?? 0);
}
