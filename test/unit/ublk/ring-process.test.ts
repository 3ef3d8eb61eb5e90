/** Goal: another process submits what was pushed to a ring, does nothing else, and ends with it. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { addTo, eventfd } from "../../../src/libc/eventfd.ts";
import { close } from "../../../src/libc/file.ts";
import { RING_PROGRAMS, SUBJECT_FD, submitApart } from "../../../src/ublk/control/ring-process.ts";
import { Ring } from "../../../src/libc/uring.ts";
import { IORING_OP_POLL_ADD, io_uring_sqe } from "../../../src/uapi/io_uring.ts";
import { POLLIN } from "../../../src/uapi/poll.ts";
import { expectAssembled, PROCESSORS } from "../../support/assembler.ts";
import { until } from "../../support/shell.ts";

/** What the program is, for the assembler: the numbers are those of the processor. */
const SOURCES = {
  x64: `
  mov $426, %eax
  mov $3, %edi
  mov $1, %esi
  mov $1, %edx
  mov $1, %r10d
  xor %r8d, %r8d
  xor %r9d, %r9d
  syscall
  mov $60, %eax
  xor %edi, %edi
  syscall
`,
  arm64: `
  mov x8, #426
  mov x0, #3
  mov x1, #1
  mov x2, #1
  mov x3, #1
  mov x4, #0
  mov x5, #0
  svc #0
  mov x8, #93
  mov x0, #0
  svc #0
`,
} as const;

test.each(PROCESSORS)("the program for %s is what the assembler makes of its text", (processor) => {
  expectAssembled(RING_PROGRAMS[processor](1, 1), SOURCES[processor], processor);
});

test("an entry waits in the name of another process, which ends when it is complete", async () => {
  const [subject, ring] = [eventfd(), new Ring(1, 0)];
  try {
    const entry = new DataView(ring.words.buffer);
    entry.setUint8(io_uring_sqe.opcode, IORING_OP_POLL_ADD);
    entry.setInt32(io_uring_sqe.fd, SUBJECT_FD, true);
    entry.setUint32(io_uring_sqe.poll32_events, POLLIN, true);
    entry.setUint32(io_uring_sqe.user_data, 17, true);
    ring.push(0);
    const child = submitApart(ring, subject);
    await until("it waits in io_uring_enter", () => {
      const [call] = readFileSync(`/proc/${child.pid}/syscall`, "utf8").split(" ");
      return call === "426";
    });
    expect(ring.ready).toBe(0);
    addTo(subject);
    await until("the entry is complete", () => ring.ready > 0);
    expect([ring.userData(0), ring.result(0)]).toEqual([17, POLLIN]);
    expect(await child.exited).toBe(0);
  } finally {
    ring.close();
    close(subject);
  }
});
