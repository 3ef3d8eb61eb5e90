/**
 * A process of its own for what waits until a device has answered: to open a node that is looked at for partitions, or
 * to have written back what the system holds for it.
 *
 * A thread that waits for that in the kernel cannot be killed. Of the process that serves the device it would keep the
 * files open after all other threads are gone, so that the driver does not learn of the end, and never fails what is
 * waited for. So it is done by the smallest process there is.
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
import { O_RDONLY } from "../uapi/fcntl.ts";
import { APART_NAME } from "./openers.ts";

/** What is done with the file, once it is open: the numbers of these system calls. */
const NUMBERS = {
  x64: { close: 3, fsync: 74, syncfs: 306 },
  arm64: { close: 57, fsync: 82, syncfs: 267 },
} as const;
const CALLS = { close, fsync, syncfs } as const;

type Call = keyof typeof CALLS;

/** int r = openat(AT_FDCWD, path, O_RDONLY); if (r >= 0) r = call(r); exit(-r) */
export const APART_PROGRAMS = {
  x64: (path: string, call: Call) =>
    withText(EM_X86_64, path, (address) => [
      [0xb8, ...u32(257)], // mov eax, SYS_openat
      [0xbf, ...u32(-100)], // mov edi, AT_FDCWD
      [0xbe, ...u32(address)], // mov esi, path
      [0x31, 0xd2], // xor edx, edx
      [0x0f, 0x05], // syscall
      [0x85, 0xc0], // test eax, eax
      [0x78, 0x09], // js end
      [0x89, 0xc7], // mov edi, eax
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
      movz(2, 0),
      u32(0xd4000001), // svc #0
      u32(0xb7f80060), // tbnz x0, #63, end
      movz(8, NUMBERS.arm64[call]),
      u32(0xd4000001), // svc #0
      u32(0xcb0003e0), // end: neg x0, x0
      movz(8, 93), // SYS_exit
      u32(0xd4000001), // svc #0
    ]),
} as const;

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
 * Opens a file for reading, makes the call, and closes it. Where this system runs no such process it is done here.
 * @returns 0 or -errno.
 */
export async function callApart(path: string, call: Call): Promise<number> {
  const { arch } = process;
  try {
    if (arch !== "x64" && arch !== "arm64") throw new Error(`no program for ${arch}`);
    const child = startTinyProgram(APART_PROGRAMS[arch](path, call), APART_NAME, []);
    const status = await child.exited;
    if (status === 0) return 0;
    return child.signalCode === null ? -status : -errno.EIO;
  } catch {
    const fd = open(path, O_RDONLY);
    if (fd < 0 || call === "close") return fd < 0 ? fd : close(fd);
    const result = CALLS[call](fd);
    close(fd);
    return result;
  }
}
