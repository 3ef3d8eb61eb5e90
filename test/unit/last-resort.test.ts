/** Goal: a program that is stuck in JavaScript is ended all the same; one that is not stuck does not notice. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import * as layout from "../../src/libc/last-resort.ts";
import { close } from "../../src/libc/file.ts";
import { sendBytes, streamSocketPair } from "../../src/libc/socket.ts";
import { expectInstructions, PROCESSORS } from "../support/assembler.ts";
import { writeFiles } from "../support/files.ts";
import { TemporaryDirectory } from "../support/temporary.ts";

const DATA = 0x1234_5678_9abc;

/** What the handlers are, for the assembler: the numbers are those of the processor. */
const COUNTING = {
  x64: `
  push %rdi
  push %rsi
  push %rdx
  movabs $DATA, %r8
  mov $1, %eax
  lock xadd %eax, (%r8)
  cmp $1, %eax
  ja on
  lea FIRST(%r8), %rsi
  jne set
  lea SECOND(%r8), %rsi
set:
  xor %edi, %edi
  xor %edx, %edx
  mov $38, %eax
  syscall
on:
  mov HANDLER(%r8), %rax
  pop %rdx
  pop %rsi
  pop %rdi
  jmp *%rax
`,
  arm64: `
  mov x10, x0
  mov x11, x1
  mov x12, x2
  movz x9, #(DATA & 0xffff)
  movk x9, #((DATA >> 16) & 0xffff), lsl #16
  movk x9, #(DATA >> 32), lsl #32
again:
  ldaxr w13, [x9]
  add w14, w13, #1
  stlxr w15, w14, [x9]
  cbnz w15, again
  cmp w13, #1
  b.hi on
  add x1, x9, #FIRST
  b.ne set
  add x1, x9, #SECOND
set:
  mov x0, #0
  mov x2, #0
  mov x8, #103
  svc #0
on:
  ldr x16, [x9, #HANDLER]
  mov x0, x10
  mov x1, x11
  mov x2, x12
  br x16
`,
} as const;
const ENDING = {
  x64: `
  movabs $DATA, %r8
  lea POLLFD(%r8), %rdi
  mov $1, %esi
  lea NO_TIME(%r8), %rdx
  xor %r10d, %r10d
  mov $271, %eax
  syscall
  cmp $1, %eax
  jne exit
  mov POLLFD(%r8), %edi
  lea LINE(%r8), %rsi
  mov LENGTH(%r8), %edx
  mov $1, %eax
  syscall
exit:
  mov $1, %edi
  mov $231, %eax
  syscall
`,
  arm64: `
  movz x9, #(DATA & 0xffff)
  movk x9, #((DATA >> 16) & 0xffff), lsl #16
  movk x9, #(DATA >> 32), lsl #32
  add x0, x9, #POLLFD
  mov x1, #1
  add x2, x9, #NO_TIME
  mov x3, #0
  mov x4, #0
  mov x8, #73
  svc #0
  cmp w0, #1
  b.ne exit
  ldr w0, [x9, #POLLFD]
  add x1, x9, #LINE
  ldr w2, [x9, #LENGTH]
  mov x8, #64
  svc #0
exit:
  mov x0, #1
  mov x8, #94
  svc #0
`,
} as const;

test.each(PROCESSORS)("the handlers for %s are what the assembler makes of their texts", (processor) => {
  const { FIRST, SECOND, HANDLER, POLLFD, NO_TIME, LINE, LENGTH } = layout;
  const symbols = Object.entries({ DATA, FIRST, SECOND, HANDLER, POLLFD, NO_TIME, LINE, LENGTH });
  const start = symbols.map(([name, value]) => `.set ${name}, ${value}\n`).join("");
  for (const [handler, text] of [
    [layout.COUNTING, COUNTING],
    [layout.ENDING, ENDING],
  ] as const) {
    const bytes = Uint8Array.from(handler[processor](DATA).flat());
    expectInstructions(bytes, start + text[processor], processor);
  }
});

const PROGRAM = `
import { LastResort } from ${JSON.stringify(join(import.meta.dir, "../../src/libc/last-resort.ts"))};
let heard = 0;
process.on("SIGTERM", () => {
  heard += 1;
  if (process.argv[2] === "disarms") {
    resort.disarm(300);
    setTimeout(() => process.exit(3), 400);
  }
  if (process.argv[2] === "forgets") {
    resort.forget();
    setTimeout(() => process.exit(3), 1200);
  }
  if (heard === Number(process.argv[4])) process.exit(3);
});
const resort = new LastResort([15], Number(process.argv[3]) || undefined, 300);
resort.line = "held up";
if (process.argv[2] === "is disarmed") resort.disarm(300);
setInterval(() => undefined, 1000);
console.log("ready");
if (process.argv[2] === "loops") for (;;);
`;

// Whether it continues, its time limit in milliseconds, the signal at which it ends itself, how many it gets, its end.
test.each([
  ["loops", 0, 0, 2, "held up\n", 1],
  ["loops", 100, 0, 1, "held up\n", 1],
  ["waits", 0, 0, 2, "held up\n", 1],
  ["waits", 0, 2, 2, "", 3],
  ["waits", 5000, 1, 1, "", 3],
  ["disarms", 100, 0, 1, "", 3],
  ["forgets", 1000, 0, 3, "", 3],
  ["is disarmed", 100, 0, 2, "held up\n", 1],
])(
  "a program that %s, with %d ms, which ends at %d of %d signals",
  async (how, firstMs, last, signals, line, status) => {
    using directory = new TemporaryDirectory();
    const path = writeFiles(directory.path, { "program.ts": PROGRAM });
    const program = Bun.spawn([process.execPath, path, how, String(firstMs), String(last)], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    await program.stdout.getReader().read();
    for (let sent = 0; sent < signals; sent += 1) {
      program.kill("SIGTERM");
      // Signals that wait together are one.
      await Bun.sleep(50);
    }
    expect(await program.exited).toBe(status);
    expect(await program.stderr.text()).toBe(line);
  },
);

test("a line is not waited for where nobody takes it", async () => {
  using directory = new TemporaryDirectory();
  const path = writeFiles(directory.path, { "program.ts": PROGRAM });
  const [ours, theirs] = streamSocketPair();
  while (sendBytes(theirs, new Uint8Array(4096)) > 0);
  const program = Bun.spawn([process.execPath, path, "loops", "100", "0"], {
    stdio: ["ignore", "pipe", theirs],
  });
  await program.stdout.getReader().read();
  program.kill("SIGTERM");
  expect(await program.exited).toBe(1);
  for (const fd of [ours, theirs]) close(fd);
});
