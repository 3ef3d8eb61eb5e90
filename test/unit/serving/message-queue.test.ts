/** Goal: a reader gets whole messages in order, and learns how many were lost. */
import { expect, spyOn, test } from "bun:test";
import { readFileSync, writeSync } from "node:fs";
import { libc } from "../../../src/libc/library.ts";
import { LineOutput } from "../../../src/serving/line-output.ts";
import { MessageQueue } from "../../../src/serving/message-queue.ts";
import { errno } from "../../../src/uapi/errno.ts";
import { until } from "../../support/shell.ts";
import { TemporaryDirectory } from "../../support/temporary.ts";
import { UnreadPipe } from "../../support/unread.ts";

/** Takes that many bytes at once, or fails with -errno. */
class Reader {
  text = "";
  takes = Number.POSITIVE_INFINITY;
  readonly queue = new MessageQueue(
    (message) => {
      if (this.takes < 0) return this.takes;
      const part = message.subarray(0, this.takes);
      this.text += new TextDecoder().decode(part);
      return part.length;
    },
    (lost) => `(${lost} lost)`,
  );
}

test("messages are sent at once, those that are taken in part are sent to their end", () => {
  const reader = new Reader();
  reader.takes = 2;
  for (const message of ["one,", "two,", "three."]) reader.queue.push(message);
  expect(reader.text).toBe("one,two,three.");
});

const LONG = "y".repeat(40_000);

test.each([
  ["is behind for a while", -errno.EAGAIN, ["a", "b"], "ab", "!"],
  ["is behind for long", -errno.EAGAIN, ["a", LONG, LONG, "b"], `a${LONG}(2 lost)`, "!"],
  ["takes nothing, but does not say so", 0, ["a"], "a", "!"],
  ["is gone, and comes back", -errno.EPIPE, ["a", "b", "c"], "(3 lost)", "!"],
  ["has a full disk, and room again", -errno.ENOSPC, ["a"], "(1 lost)", "!"],
])("a reader that %s", (_, failure, messages, expected, next) => {
  const reader = new Reader();
  reader.takes = failure;
  for (const message of messages) reader.queue.push(message);
  expect(reader.text).toBe("");
  reader.takes = Number.POSITIVE_INFINITY;
  reader.queue.push(next);
  expect(reader.text).toBe(expected + next);
});

test("what is kept is sent though no other message comes; at the end a reader gets a moment, and no more", async () => {
  const reader = new Reader();
  reader.takes = -errno.EAGAIN;
  reader.queue.push("late");
  reader.takes = Number.POSITIVE_INFINITY;
  await until("it is sent", () => reader.text === "late");
  reader.takes = -errno.EAGAIN;
  reader.queue.push(", later");
  const finish = reader.queue.finish(60_000);
  reader.takes = Number.POSITIVE_INFINITY;
  await finish;
  expect(reader.text).toBe("late, later");
  reader.takes = -errno.EAGAIN;
  reader.queue.push("never");
  await reader.queue.finish(1);
});

function withReopening<T>(use: () => T): T {
  return use();
}

/** As where /proc is not mounted, or the pipe is another user's. */
function withoutReopening<T>(use: () => T): T {
  // close(2) leaves an errno behind.
  const refuse = Object.assign(() => libc.close(-1), libc.open);
  const spy = spyOn(libc, "open").mockImplementation(refuse);
  try {
    return use();
  } finally {
    spy.mockRestore();
  }
}

test.each([
  ["is opened anew", withReopening],
  ["cannot be opened anew", withoutReopening],
])("a full pipe that %s: what others have of it is left as it is, and nobody waits", async (_, open) => {
  using directory = new TemporaryDirectory();
  using pipe = new UnreadPipe(directory.join("pipe"));
  const output = open(() => new LineOutput(pipe.fd, (lost) => `${lost} lost`));
  const lines = Array.from({ length: 3000 }, (__, number) => `line ${number} ${"z".repeat(50)}`);
  for (const line of lines) output.write(line);
  const flags = /^flags:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${pipe.fd}`, "utf8"))?.[1];
  expect(Number.parseInt(flags ?? "", 8) & 0o4000, "O_NONBLOCK of the pipe").toBe(0);
  let text = "";
  await until("all of it has been read", () => (text += pipe.read()).includes(" lost\n"));
  const got = text.trimEnd().split("\n");
  expect(got.slice(0, -1)).toEqual(lines.slice(0, got.length - 1));
  expect(got.at(-1)).toBe(`${lines.length - got.length + 1} lost`);
  writeSync(pipe.fd, "of others\n");
  output.write("after");
  expect(pipe.read()).toBe("of others\nafter\n");
  output.close();
});
