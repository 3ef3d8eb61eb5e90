/** Goal: a backend identifier tells who owns a node, and which device it shows. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { ownBackend, parseBackend, recoverableBackend, startOf } from "../../../src/nbd/node/backend.ts";

test("of this thread", () => {
  const text = ownBackend();
  expect(text).toStartWith(`tsbuse pid=${process.pid} start=`);
  expect(parseBackend(text)).toEqual({ kind: "process", start: startOf(process.pid) ?? -1 });
});

test("the start is the 22nd field, whatever the name is", () => {
  const child = Bun.spawn(["sh", "-c", "exec sleep 60"], { argv0: "x" });
  try {
    const text = readFileSync(`/proc/${child.pid}/stat`, "utf8");
    expect(startOf(child.pid)).toBe(Number(text.trim().split(" ")[21]));
    expect(startOf(2 ** 30)).toBeUndefined();
  } finally {
    child.kill("SIGKILL");
  }
});

test("of a device, which no page of sysfs is too short for", () => {
  const identity = "loop:254:1/1234@0 size=67108864 block=512 rw";
  expect(parseBackend(recoverableBackend(identity))).toEqual({ kind: "recoverable", identity });
  const long = "ü".repeat(1500);
  expect(recoverableBackend(long)).toMatch(/^tsbuse recover sha256:[0-9a-f]{64}$/);
  expect(recoverableBackend(long)).not.toBe(recoverableBackend(`${long}.`));
});

test.each([
  "",
  "nbd-client",
  "tsbuse",
  "tsbuse pid=1",
  "tsbuse recover ",
  "my tsbuse recover x",
  "tsbuse pid=a start=1",
])("not ours: %j", (text) => expect(parseBackend(text)).toBeUndefined());
