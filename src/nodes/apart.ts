/**
 * A separate process for calls that wait for a device to answer: opening a node, which makes the kernel look for
 * partitions, and writing back what the system holds for it.
 *
 * A thread that waits for that in the kernel cannot be killed. In the process that serves the device, such a thread
 * would keep the files open after all other threads are gone. The driver would not learn of the end, and would never
 * fail what the thread waits for. So the smallest possible process does it.
 */
import { close, fsync, open, syncfs } from "../libc/file.ts";
import {
  CODE_ADDRESS,
  EM_AARCH64,
  EM_X86_64,
  movz,
  startTinyProgram,
  tinyProgram,
  u32,
} from "../libc/tiny-program.ts";
import { errno } from "../uapi/errno.ts";
import { O_EXCL, O_RDONLY } from "../uapi/fcntl.ts";
import { BLKFLSBUF } from "../uapi/fs.ts";
import { APART_NAME } from "./openers.ts";

/** The system call to make on the open file: its number on each processor. */
const NUMBERS = {
  x64: { close: 3, fsync: 74, syncfs: 306, ioctl: 16 },
  arm64: { close: 57, fsync: 82, syncfs: 267, ioctl: 29 },
} as const;

type Call = keyof (typeof NUMBERS)["x64"];

/** int r = openat(AT_FDCWD, path, flags); if (r >= 0) r = call(r, BLKFLSBUF); exit(-r) */
export const APART_PROGRAMS = {
  x64: (path: string, call: Call) =>
    withText(EM_X86_64, path, (address) => [
      [0xb8, ...u32(257)], // mov eax, SYS_openat
      [0xbf, ...u32(-100)], // mov edi, AT_FDCWD
      [0xbe, ...u32(address)], // mov esi, path
      [0xba, ...u32(flagsFor(call))], // mov edx, flags
      [0x0f, 0x05], // syscall
      [0x85, 0xc0], // test eax, eax
      [0x78, 0x0e], // js end
      [0x89, 0xc7], // mov edi, eax
      [0xbe, ...u32(BLKFLSBUF)], // mov esi, BLKFLSBUF
      [0xb8, ...u32(NUMBERS.x64[call])], // mov eax, call
      [0x0f, 0x05], // syscall
      [0x89, 0xc7], // end: mov edi, eax
      [0xf7, 0xdf], // neg edi
      [0xb8, ...u32(60)], // mov eax, SYS_exit
      [0x0f, 0x05], // syscall
    ]),
  arm64: (path: string, call: Call) =>
    withText(EM_AARCH64, path, (address) => [
      movz(8, 56), // SYS_openat
      u32(0x92800c60), // mov x0, #-100
      movz(1, address & 0xffff),
      u32(0xf2a00001 | ((address >>> 16) << 5)), // movk x1, #(address >> 16), lsl #16
      movz(2, flagsFor(call)),
      u32(0xd4000001), // svc #0
      u32(0xb7f80080), // tbnz x0, #63, end
      movz(1, BLKFLSBUF),
      movz(8, NUMBERS.arm64[call]),
      u32(0xd4000001), // svc #0
      u32(0xcb0003e0), // end: neg x0, x0
      movz(8, 93), // SYS_exit
      u32(0xd4000001), // svc #0
    ]),
} as const;

function flagsFor(call: Call): number {
  return call === "ioctl" ? O_RDONLY | O_EXCL : O_RDONLY;
}

/** A program that finds a text, and the byte 0, behind its instructions. */
function withText(
  machine: number,
  text: string,
  instructions: (address: number) => readonly (readonly number[])[],
): Uint8Array {
  const address = CODE_ADDRESS + instructions(0).flat().length;
  return tinyProgram(machine, [...instructions(address), [...Buffer.from(text), 0]]);
}

/**
 * Opens a file for reading, makes the call, and closes it. If this system cannot run such a process, does so itself.
 * Returns 0 or -errno.
 */
export async function callApart(path: string, call: "close" | "fsync" | "syncfs"): Promise<number> {
  try {
    return await runApart(path, call);
  } catch {
    return runHere(path, call);
  }
}

/**
 * Writes back and drops what the system holds for a node: BLKFLSBUF. Returns 0 or -errno: -EBUSY if it is mounted, or
 * in use by another device.
 * @throws Error if this system cannot run such a process: the server of the node would wait for itself.
 */
export function forgetApart(path: string): Promise<number> {
  return runApart(path, "ioctl");
}

async function runApart(path: string, call: Call): Promise<number> {
  const { arch } = process;
  if (arch !== "x64" && arch !== "arm64") throw new Error(`no program for ${arch}`);
  const child = startTinyProgram(APART_PROGRAMS[arch](path, call), APART_NAME, []);
  const status = await child.exited;
  if (status === 0) return 0;
  return child.signalCode === null ? -status : -errno.EIO;
}

function runHere(path: string, call: "close" | "fsync" | "syncfs"): number {
  const fd = open(path, O_RDONLY);
  if (fd < 0) return fd;
  const calls = { close: () => 0, fsync, syncfs };
  const result = calls[call](fd);
  close(fd);
  return Math.min(result, 0);
}
