/**
 * A process of its own for what waits until a device has answered: to open a node that is looked at for partitions, to
 * have written back what the system holds for it, or to set what the kernel sets only while no request is in flight.
 *
 * A thread that waits for that in the kernel cannot be killed. Of the process that serves the device it would keep the
 * files open after all other threads are gone, so that the driver does not learn of the end, and never fails what is
 * waited for. So it is done by the smallest process there is.
 */
import { close, fsync, open, syncfs, write } from "../libc/file.ts";
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
import { O_RDONLY, O_WRONLY } from "../uapi/fcntl.ts";
import { APART_NAME } from "./openers.ts";

/** What is done with the file once it is open: the numbers of these system calls. */
const NUMBERS = {
  x64: { write: 1, close: 3, fsync: 74, syncfs: 306 },
  arm64: { write: 64, close: 57, fsync: 82, syncfs: 267 },
} as const;

type Call = keyof (typeof NUMBERS)["x64"];

/** int r = openat(AT_FDCWD, path, flags); if (r >= 0) r = call(r, text, length); exit(r < 0 ? -r : 0) */
export const APART_PROGRAMS = {
  x64: (path: string, call: Call, text: string) =>
    withTexts(EM_X86_64, path, text, (pathAt, textAt, length) => [
      [0xb8, ...u32(257)], // mov eax, SYS_openat
      [0xbf, ...u32(-100)], // mov edi, AT_FDCWD
      [0xbe, ...u32(pathAt)], // mov esi, path
      [0xba, ...u32(flagsFor(call))], // mov edx, flags
      [0x0f, 0x05], // syscall
      [0x85, 0xc0], // test eax, eax
      [0x78, 0x13], // js end
      [0x89, 0xc7], // mov edi, eax
      [0xbe, ...u32(textAt)], // mov esi, text
      [0xba, ...u32(length)], // mov edx, length
      [0xb8, ...u32(NUMBERS.x64[call])], // mov eax, call
      [0x0f, 0x05], // syscall
      [0x89, 0xc7], // end: mov edi, eax
      [0xc1, 0xff, 0x1f], // sar edi, 31
      [0x21, 0xc7], // and edi, eax
      [0xf7, 0xdf], // neg edi
      [0xb8, ...u32(60)], // mov eax, SYS_exit
      [0x0f, 0x05], // syscall
    ]),
  arm64: (path: string, call: Call, text: string) =>
    withTexts(EM_AARCH64, path, text, (pathAt, textAt, length) => [
      movz(8, 56), // SYS_openat
      u32(0x92800c60), // mov x0, #-100
      ...addressIn(1, pathAt),
      movz(2, flagsFor(call)),
      u32(0xd4000001), // svc #0
      u32(0xb7f800c0), // tbnz x0, #63, end
      ...addressIn(1, textAt),
      movz(2, length),
      movz(8, NUMBERS.arm64[call]),
      u32(0xd4000001), // svc #0
      u32(0x937ffc01), // end: asr x1, x0, #63
      u32(0x8a010000), // and x0, x0, x1
      u32(0xcb0003e0), // neg x0, x0
      movz(8, 93), // SYS_exit
      u32(0xd4000001), // svc #0
    ]),
} as const;

function flagsFor(call: Call): number {
  return call === "write" ? O_WRONLY : O_RDONLY;
}

/** arm64: an address below 2^32 */
function addressIn(register: number, address: number): readonly (readonly number[])[] {
  // mov xN, #low; movk xN, #high, lsl #16
  return [movz(register, address & 0xffff), u32(0xf2a00000 | ((address >>> 16) << 5) | register)];
}

/** A program that finds two texts behind its instructions, the first with a byte 0 at its end. */
function withTexts(
  machine: number,
  path: string,
  text: string,
  instructions: (pathAt: number, textAt: number, length: number) => readonly (readonly number[])[],
): Uint8Array {
  const [pathBytes, textBytes] = [[...Buffer.from(path), 0], [...Buffer.from(text)]];
  const pathAt = CODE_ADDRESS + instructions(0, 0, 0).flat().length;
  const code = instructions(pathAt, pathAt + pathBytes.length, textBytes.length);
  return tinyProgram(machine, [...code, pathBytes, textBytes]);
}

/** Opens a file for reading, makes the call, and closes it. Returns 0 or -errno. */
export function callApart(path: string, call: "close" | "fsync" | "syncfs"): Promise<number> {
  return runApart(path, call, "");
}

/** Writes a text to a file that exists, with one call. Returns 0 or -errno. */
export function writeApart(path: string, text: string): Promise<number> {
  return runApart(path, "write", text);
}

/** Where this system runs no such process it is done here. */
async function runApart(path: string, call: Call, text: string): Promise<number> {
  const { arch } = process;
  try {
    if (arch !== "x64" && arch !== "arm64") throw new Error(`no program for ${arch}`);
    const child = startTinyProgram(APART_PROGRAMS[arch](path, call, text), APART_NAME, []);
    const status = await child.exited;
    if (status === 0) return 0;
    return child.signalCode === null ? -status : -errno.EIO;
  } catch {
    return runHere(path, call, text);
  }
}

function runHere(path: string, call: Call, text: string): number {
  const fd = open(path, flagsFor(call));
  if (fd < 0) return fd;
  const calls = { close: () => 0, fsync, syncfs, write: () => write(fd, Buffer.from(text)) };
  const result = calls[call](fd);
  close(fd);
  return Math.min(result, 0);
}
