/** Goal: a torture run finds planted faults, says how to repeat them, and ends with 1. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { run } from "../support/shell.ts";

const GUEST = join(import.meta.dir, "../../scripts/torture/guest.ts");

test.each([
  ["lie", "a write that was acknowledged is lost"],
  ["leak", "the server has grown: descriptors"],
])("a device that has a %s", async (plant, message) => {
  const end = await run([process.execPath, GUEST, "--seed", "1", "--steps", "8", "--plant", plant], 170_000);
  expect(end.stdout).toContain(`FAULT: `);
  expect(end.stdout).toContain(message);
  expect(end.stdout).toMatch(
    new RegExp(`^all of them: bun run torture --seed 1 --steps \\d --plant ${plant}$`, "m"),
  );
  expect(end.status).toBe(1);
});
