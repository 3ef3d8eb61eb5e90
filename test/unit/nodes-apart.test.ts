/** Goal: the separate process does its work on a file, and its result is known. */
import { expect, test } from "bun:test";
import { errno } from "tsbuse";
import { APART_PROGRAMS, callApart, forgetApart } from "../../src/nodes/apart.ts";
import { expectAssembled, PROCESSORS } from "../support/assembler.ts";
import { TemporaryDirectory } from "../support/temporary.ts";

test("it opens a file and makes the call, or says what failed", async () => {
  using directory = new TemporaryDirectory();
  const file = directory.join("a file");
  await Bun.write(file, "data");
  for (const call of ["close", "fsync", "syncfs"] as const) {
    expect(await callApart(file, call)).toBe(0);
    expect(await callApart(directory.join("none"), call)).toBe(-errno.ENOENT);
  }
  // fsync(2): a file that cannot be synchronized.
  expect(await callApart("/dev/null", "fsync")).toBe(-errno.EINVAL);
  expect(await callApart("/dev/null", "close")).toBe(0);
  expect(await forgetApart("/dev/null")).toBe(-errno.ENOTTY);
});

/** What the program is, for the assembler: O_EXCL, BLKFLSBUF and the numbers of the processor. */
const SOURCES = {
  x64: `
start:
  mov $257, %eax
  mov $-100, %edi
  mov $(path - start + 0x400078), %esi
  mov $0x80, %edx
  syscall
  test %eax, %eax
  js end
  mov %eax, %edi
  mov $0x1261, %esi
  mov $16, %eax
  syscall
end:
  mov %eax, %edi
  neg %edi
  mov $60, %eax
  syscall
path:
  .asciz "/dev/null"
`,
  arm64: `
start:
  mov x8, #56
  mov x0, #-100
  movz x1, #(path - start + 0x78)
  movk x1, #0x40, lsl #16
  mov x2, #0x80
  svc #0
  tbnz x0, #63, end
  mov x1, #0x1261
  mov x8, #29
  svc #0
end:
  neg x0, x0
  mov x8, #93
  svc #0
path:
  .asciz "/dev/null"
`,
} as const;

test.each(PROCESSORS)("the program for %s is what the assembler makes of its text", (processor) => {
  expectAssembled(APART_PROGRAMS[processor]("/dev/null", "ioctl"), SOURCES[processor], processor);
});

test("it is another process that does it", async () => {
  using directory = new TemporaryDirectory();
  const pipe = directory.join("pipe");
  Bun.spawnSync(["mkfifo", pipe]);
  // Opened by this thread, it would wait for ever.
  const opened = callApart(pipe, "close");
  const writer = Bun.spawn(["sh", "-c", ': > "$0"', pipe]);
  expect(await opened).toBe(0);
  expect(await writer.exited).toBe(0);
});

test("where no process can be had it is done here, but for what waits for whoever serves the node", async () => {
  const arch = Object.getOwnPropertyDescriptor(process, "arch");
  Object.defineProperty(process, "arch", { ...arch, value: "riscv64" });
  try {
    expect(await callApart("/dev/null", "fsync")).toBe(-errno.EINVAL);
    await expect(forgetApart("/dev/null")).rejects.toThrow("no program for riscv64");
  } finally {
    Object.defineProperty(process, "arch", { ...arch });
  }
});
