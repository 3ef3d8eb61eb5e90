/** Goal: a process whose memory is locked works as before, and what it touches stays in memory. */
import { expect, test } from "bun:test";
import { codeRanges } from "../../src/libc/resident.ts";
import { run } from "../support/shell.ts";

test("what is executed is found among all that is mapped", () => {
  const maps = `00200000-00300000 r--p 00000000 fe:00 12                         /usr/bin/tsbuse
00300000-00a00000 r-xp 00100000 fe:00 12                         /usr/bin/tsbuse (deleted)
00a00000-00b00000 rw-p 00800000 fe:00 12                         /usr/bin/tsbuse
7f0000000000-7f0000010000 rwxp 00000000 00:00 0
7f1000000000-7f1000001000 r-xp 00000000 fe:00 34                 /lib/libc.so.6
7fff00000000-7fff00002000 r-xp 00000000 00:00 0                  [vdso]
`;
  expect(codeRanges(maps)).toEqual([
    [0x300000, 0xa00000],
    [0x7f1000000000, 0x7f1000001000],
  ]);
});

/** Memory that is freed and had again must read as zeroes, though the system refuses to take its pages back. */
const LOCKED = `
  import { lockWhatIsTouched, touchCode } from "./src/libc/resident.ts";
  import { discardPages, Memory } from "./src/libc/memory.ts";
  const locked = lockWhatIsTouched();
  if (locked < 0) { console.log("skipped", locked); process.exit(); }
  touchCode();
  const memory = new Memory(1 << 20);
  memory.bytes().fill(7);
  discardPages(memory.address, memory.size);
  let wrong = memory.bytes().every((byte) => byte === 7) ? 0 : 1;
  const zeroes = new Uint8Array(1 << 24);
  for (let round = 0; round < 32; round += 1) {
    for (const bytes of [1 << 12, 1 << 16, 1 << 20, 1 << 24]) {
      const array = new Uint8Array(bytes);
      if (Buffer.compare(array, zeroes.subarray(0, bytes)) !== 0) wrong += 1;
      array.fill(round + 1);
    }
    if (round % 8 === 0) Bun.gc(true);
  }
  const status = await Bun.file("/proc/self/status").text();
  console.log(wrong, Number(/VmLck:\\s*(\\d+)/.exec(status)?.[1]) > 0);
`;

test("a process with locked memory gets zeroed memory, and keeps its pages (needs CAP_IPC_LOCK)", async () => {
  const { stdout, stderr } = await run([process.execPath, "-e", LOCKED]);
  expect(stderr).toBe("");
  expect(stdout).toMatch(/^(0 true|skipped -\d+)\n$/);
});
