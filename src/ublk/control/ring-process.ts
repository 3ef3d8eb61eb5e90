/**
 * A process of its own for a command of io_uring that may have to wait for this one.
 *
 * The kernel carries out what cannot be done at once on a thread that belongs to the process that submitted it, and a
 * process that is killed ends only after that thread has. A command that waits until this process has answered its
 * requests would then keep it from dying, and its files open, so that the requests are never failed either. So another
 * process submits such a command: the smallest there is, which shares the ring, and nothing else.
 *
 * tsbuse itself, started with a hidden command, could be that process, and no machine code were needed. But to start it
 * is to read its file of a hundred megabytes, which may lie on the very device that is to be stopped, or be gone after
 * an update; it takes ten times as long (39 ms instead of 4) and 33 MiB of memory instead of 12 KiB, when memory may
 * be short; and a program that uses the library under bun has no such command. Eleven instructions in a file in memory
 * depend on nothing.
 */
import type { Subprocess } from "bun";
import { SYS_io_uring_enter } from "../../uapi/unistd.ts";
import { EM_AARCH64, EM_X86_64, movz, startTinyProgram, tinyProgram, u32 } from "../../libc/tiny-program.ts";
import type { Ring } from "../../libc/uring.ts";

/** The file descriptors that the process finds beside its standard ones. */
const RING_FD = 3;
/** For a submission entry: the file that the command is about, as that process knows it. */
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
 * Starts a process that submits what was pushed to the ring and ends when that is complete. Completions are to be
 * looked for in the ring. Signals of this process's group do not reach it.
 * @param subject the file that the entries name as {@link SUBJECT_FD}.
 * @param count of entries, below 65,536.
 * @param waitFor so many completions; 0 to end as soon as they are submitted, which takes back those that still wait.
 * @throws Error where this system runs no such program; nothing is submitted then.
 */
export function submitApart(ring: Ring, subject: number, count = 1, waitFor = 1): Subprocess {
  const { arch } = process;
  if (arch !== "x64" && arch !== "arm64") throw new Error(`no program for ${arch}`);
  const program = RING_PROGRAMS[arch](count, waitFor);
  ring.publish();
  return startTinyProgram(program, "tsbuse (a command of io_uring)", [ring.fd, subject]);
}
