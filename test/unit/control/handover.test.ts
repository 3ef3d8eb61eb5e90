/** Goal: a process does not let go of a device for a client that is gone. */
import { expect, test } from "bun:test";
import { answerAbout, type Subject } from "../../../src/control/commands.ts";
import { ControlConnection } from "../../../src/control/connection.ts";
import { PROTOCOL } from "../../../src/control/handover.ts";
import { close } from "../../../src/libc/file.ts";
import { receiveBytes, sendBytes, streamSocketPair } from "../../../src/libc/socket.ts";
import { until } from "../../support/shell.ts";

test.each([
  ["waits", ["let go", "taken back"]],
  ["is killed at once", []],
] as const)("one who asks for a device and %s: %p", async (how, expected) => {
  const did: string[] = [];
  const handover = {
    fds: {},
    letGo: () => (did.push("let go"), "stays"),
    takeBack: () => did.push("taken back"),
    handedOn: () => did.push("handed on"),
  };
  // The other members of a subject are not used.
  const subject = { transport: { path: "/dev/nbd0", handover }, dispatch: {} } as unknown as Subject;
  const [ours, its] = streamSocketPair();
  let isOver = false;
  const connection = new ControlConnection(ours, answerAbout(subject), () => (isOver = true));
  const say = (command: string): void =>
    void sendBytes(its, Buffer.from(`${JSON.stringify({ command, protocol: PROTOCOL })}\n`));
  const hear = (): Promise<void> =>
    until("there is an answer", () => receiveBytes(its, new Uint8Array(4096)) > 0);
  say("handover-begin");
  connection.service();
  await hear();
  say("handover-release");
  if (how === "waits") {
    connection.service();
    await hear();
  }
  close(its);
  connection.service();
  await until("it is over", () => isOver);
  expect<readonly string[]>(did).toEqual(expected);
});
