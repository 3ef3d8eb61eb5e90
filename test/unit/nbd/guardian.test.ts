/** Goal: the process beside a server does something when that is gone, and only then. */
import { test } from "bun:test";
import { GUARDIAN_PROGRAMS } from "../../../src/nbd/node/guardian.ts";
import { expectAssembled } from "../../support/assembler.ts";

/** What the program is, for the assembler: the numbers are those of x86-64. */
const SOURCE = `
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
`;

test.skipIf(process.arch !== "x64")("the program is what the assembler makes of its text", () => {
  expectAssembled(GUARDIAN_PROGRAMS.x64(), SOURCE);
});
