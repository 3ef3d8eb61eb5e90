/** What the system and tsbuse tell of ublk devices. */
import { expect } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { BINARY } from "./server.ts";
import { run } from "./shell.ts";

/** All devices that the driver has: their nodes, and what they are served by. */
export function devices(): string[] {
  const names = existsSync("/sys/class/ublk-char") ? readdirSync("/sys/class/ublk-char") : [];
  return [...names, ...readdirSync("/dev").filter((name) => name.startsWith("ublkb"))].toSorted();
}

/** The one line that a start ends with that is refused. */
export async function refusal(...words: string[]): Promise<string> {
  const { status, stdout, stderr } = await run([BINARY, ...words]);
  expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
  expect(stderr).toMatch(/^tsbuse: [^\n]+\n$/);
  return stderr;
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
