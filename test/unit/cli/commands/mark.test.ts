/** `tsbuse mark`: the mark reaches the record of a device in use, or a line says why not. */
import { expect, test } from "bun:test";
import { markText, readRecord } from "../../../../src/record/reader.ts";
import { TemporaryDirectory } from "../../../support/temporary.ts";
import { commandOf, execute, expectLine } from "../tsbuse.ts";

test("a mark is in the record of the device that is meant, and of no other", async () => {
  using directory = new TemporaryDirectory();
  const [recorded, plain] = ["recorded", "plain"].map((name) => `unix:${directory.join(`${name}.sock`)}`);
  const record = directory.join("record");
  const env = { ...process.env, XDG_RUNTIME_DIR: directory.path };
  const mark = (...words: readonly string[]) =>
    execute(["env", `XDG_RUNTIME_DIR=${directory.path}`, ...commandOf("mark", ...words)]);
  const servers = [
    ["1M", `${recorded}`, "--layer", `record:file=${record}`],
    ["1M", `${plain}`],
  ].map((words) => Bun.spawn(commandOf("ramdisk", ...words), { env, stdout: "pipe", stderr: "inherit" }));
  try {
    for (const { stdout } of servers) await stdout.getReader().read();
    expect(mark(`${recorded}`, "order 17")).toEqual({ status: 0, stdout: "", stderr: "" });
    expectLine(
      mark(`${plain}`, "order 18"),
      1,
      "has no record, or one that has ended",
      "--layer record:file=FILE",
    );
    expectLine(mark(`${recorded}`, "x".repeat(1025)), 2, "a mark has up to 1024 bytes", "give a shorter one");
    expectLine(mark(`unix:${directory.join("none")}`, "x"), 1, "no process of tsbuse serves", "tsbuse list");
  } finally {
    for (const server of servers) server.kill("SIGTERM");
    await Promise.all(servers.map(({ exited }) => exited));
  }
  const file = readRecord(record);
  expect(file.events.map((event) => markText(file, event))).toEqual(["order 17"]);
});
