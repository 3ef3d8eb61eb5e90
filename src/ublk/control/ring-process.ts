/**
 * A separate process for an io_uring command that may have to wait for this one.
 *
 * The kernel executes a command that must wait on a thread of the submitting process, and a killed process ends only
 * after that thread. So a command that waits until this process has answered its requests would keep it from dying,
 * with its files open, and the requests would never fail either. Therefore another process submits such a command: the
 * smallest possible one, which shares the ring and nothing else.
 *
 * tsbuse itself, started with a hidden command, could be that process, without machine code. But starting it means
 * reading a file of a hundred megabytes, which may be on the very device to stop, or be gone after an update. It takes
 * ten times as long (39 ms instead of 4) and 33 MiB of memory instead of 12 KiB, when memory may be short. And a
 * program that uses the library under bun has no such command. Eleven instructions in a file in memory depend on
 * nothing.
 */
import type { Subprocess } from "bun";
import { SYS_io_uring_enter } from "../../uapi/unistd.ts";
import { EM_AARCH64, EM_X86_64, movz, startTinyProgram, tinyProgram, u32 } from "../../libc/tiny-program.ts";
import type { Ring } from "../../libc/uring.ts";

/** The file descriptors of the process besides its standard ones. */
const RING_FD = 3;
/** For a submission entry: the file of the command, as a descriptor of that process. */
export const SUBJECT_FD = 4;

/** io_uring_enter(RING_FD, count, waitFor, IORING_ENTER_GETEVENTS, 0, 0); exit(0) */
export const RING_PROGRAMS = {
  x64: (count: number, waitFor: number) =>
    tinyProgram(EM_X86_64, [
      [0xb8, ...u32(SYS_io_uring_enter)], // mov eax, SYS_io_uring_enter
      [0xbf, ...u32(RING_FD)], // mov edi, RING_FD
      [0xbe, ...u32(count)], // mov esi, count
      [0xba, ...u32(waitFor)], // mov edx, waitFor
      [0x41, 0xba, ...u32(1)], // mov r10d, IORING_ENTER_GETEVENTS
      [0x45, 0x31, 0xc0], // xor r8d, r8d
      [0x45, 0x31, 0xc9], // xor r9d, r9d
      [0x0f, 0x05], // syscall
      [0xb8, ...u32(60)], // mov eax, SYS_exit
      [0x31, 0xff], // xor edi, edi
      [0x0f, 0x05], // syscall
    ]),
  arm64: (count: number, waitFor: number) =>
    tinyProgram(EM_AARCH64, [
      movz(8, SYS_io_uring_enter),
      movz(0, RING_FD),
      movz(1, count),
      movz(2, waitFor),
      movz(3, 1), // IORING_ENTER_GETEVENTS
      movz(4, 0),
      movz(5, 0),
      u32(0xd4000001), // svc #0
      movz(8, 93), // SYS_exit
      movz(0, 0),
      u32(0xd4000001), // svc #0
    ]),
} as const;

/**
 * Starts a process that submits the entries pushed to the ring and ends when they are complete. Look for completions in
 * the ring. Signals to this process's group do not reach it.
 * @param subject the file that the entries name as {@link SUBJECT_FD}.
 * @param count of entries, below 65,536.
 * @param waitFor number of completions; 0 to end once they are submitted, which cancels those that still wait.
 * @throws Error if this system cannot run such a program; then nothing is submitted.
 */
export function submitApart(ring: Ring, subject: number, count = 1, waitFor = 1): Subprocess {
  const { arch } = process;
  if (arch !== "x64" && arch !== "arm64") throw new Error(`no program for ${arch}`);
  const program = RING_PROGRAMS[arch](count, waitFor);
  ring.publish();
  return startTinyProgram(program, "tsbuse (a command of io_uring)", [ring.fd, subject]);
}
