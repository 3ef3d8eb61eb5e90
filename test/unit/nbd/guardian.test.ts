/** Goal: the guardian process acts when its server is gone, and only then. */
import { test } from "bun:test";
import { GUARDIAN_PROGRAMS } from "../../../src/nbd/node/guardian.ts";
import { expectAssembled, PROCESSORS } from "../../support/assembler.ts";

/** The program's source for the assembler, with the numbers of each processor. */
const SOURCES = {
  x64: `
  push $-1
  mov $14, %eax
  xor %edi, %edi
  mov %rsp, %rsi
  xor %edx, %edx
  mov $8, %r10d
  syscall
  xor %eax, %eax
  mov $3, %edi
  mov %rsp, %rsi
  mov $1, %edx
  syscall
  cmp $1, %eax
  je end
  mov $16, %eax
  mov $4, %edi
  mov $0xab04, %esi
  xor %edx, %edx
  syscall
end:
  mov $60, %eax
  xor %edi, %edi
  syscall
`,
  arm64: `
  mov x9, #-1
  str x9, [sp, #-16]!
  mov x8, #135
  mov x0, #0
  mov x1, sp
  mov x2, #0
  mov x3, #8
  svc #0
  mov x8, #63
  mov x0, #3
  mov x1, sp
  mov x2, #1
  svc #0
  cmp x0, #1
  b.eq end
  mov x8, #29
  mov x0, #4
  mov x1, #0xab04
  mov x2, #0
  svc #0
end:
  mov x8, #93
  mov x0, #0
  svc #0
`,
} as const;

test.each(PROCESSORS)("the program for %s is what the assembler makes of its text", (processor) => {
  expectAssembled(GUARDIAN_PROGRAMS[processor](), SOURCES[processor], processor);
});
