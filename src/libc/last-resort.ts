/**
 * Ends a program whose JavaScript is stuck. A method that loops, or sleeps in a system call, keeps every handler of the
 * runtime from running, and signals then have no effect.
 *
 * What still works is a kernel timer, which the signal itself sets as it arrives: the first signal gives the program
 * its time, the second almost none. If the program has not ended by then, SIGALRM ends it with a message and exit
 * status 1. A program that is not stuck does not notice.
 *
 * A signal handler must be machine code, and no function of the C library does this. So this file contains a few
 * instructions for each processor. They touch only the registers that a function may change, and their own memory.
 * Threads would not help: those of the runtime do not receive signals, and each would cost some megabytes.
 */
import { ptr } from "bun:ffi";
import { PROT_EXEC, PROT_READ } from "../uapi/mman.ts";
import { SA_RESTART, SIGALRM, sigaction } from "../uapi/signal.ts";
import { negativeErrno, unwrap } from "./errno.ts";
import { libc } from "./library.ts";
import { Memory } from "./memory.ts";

/** Offsets in the handlers' memory, in bytes: the count of signals comes first, {@link LINE} last. */
export const HANDLER = 8;
export const FIRST = 16;
export const SECOND = 48;
export const POLLFD = 80;
export const NO_TIME = 88;
export const LENGTH = 104;
export const LINE = 112;

/** Whole pages on every system: for the data and for each handler. */
const AREA_BYTES = 65_536;
/** A writable pipe has room for this much: PIPE_BUF. */
const LINE_MAX = 4096;
const POLLOUT = 4;

type Instructions = readonly (readonly number[])[];

/** A handler that counts, sets the timer, and jumps to the previous handler. `data` is its memory. */
export const COUNTING = {
  x64: (data: number): Instructions => [
    [0x57], // push rdi
    [0x56], // push rsi
    [0x52], // push rdx
    [0x49, 0xb8, ...u64(data)], // mov r8, data
    [0xb8, ...u32(1)], // mov eax, 1
    [0xf0, 0x41, 0x0f, 0xc1, 0x00], // lock xadd [r8], eax
    [0x83, 0xf8, 0x01], // cmp eax, 1
    [0x77, 21], // ja on
    [0x49, 0x8d, 0x70, FIRST], // lea rsi, [r8 + FIRST]
    [0x75, 0x04], // jne set
    [0x49, 0x8d, 0x70, SECOND], // lea rsi, [r8 + SECOND]
    [0x31, 0xff], // set: xor edi, edi (ITIMER_REAL)
    [0x31, 0xd2], // xor edx, edx
    [0xb8, ...u32(38)], // mov eax, SYS_setitimer
    [0x0f, 0x05], // syscall
    [0x49, 0x8b, 0x40, HANDLER], // on: mov rax, [r8 + HANDLER]
    [0x5a], // pop rdx
    [0x5e], // pop rsi
    [0x5f], // pop rdi
    [0xff, 0xe0], // jmp rax
  ],
  arm64: (data: number): Instructions => [
    u32(0xaa0003ea), // mov x10, x0
    u32(0xaa0103eb), // mov x11, x1
    u32(0xaa0203ec), // mov x12, x2
    ...movAddress(9, data), // x9 = data
    u32(0x885ffd2d), // again: ldaxr w13, [x9]
    u32(0x110005ae), // add w14, w13, #1
    u32(0x880ffd2e), // stlxr w15, w14, [x9]
    u32(0x35ffffaf), // cbnz w15, again
    u32(0x710005bf), // cmp w13, #1
    u32(0x54000108), // b.hi on
    add(1, FIRST), // add x1, x9, #FIRST
    u32(0x54000041), // b.ne set
    add(1, SECOND), // add x1, x9, #SECOND
    movz(0, 0), // set: ITIMER_REAL
    movz(2, 0),
    movz(8, 103), // SYS_setitimer
    u32(0xd4000001), // svc #0
    u32(0xf9400130 | ((HANDLER / 8) << 10)), // on: ldr x16, [x9, #HANDLER]
    u32(0xaa0a03e0), // mov x0, x10
    u32(0xaa0b03e1), // mov x1, x11
    u32(0xaa0c03e2), // mov x2, x12
    u32(0xd61f0200), // br x16
  ],
} as const;

/** A handler that writes the line, unless it would have to wait, and exits with 1. */
export const ENDING = {
  x64: (data: number): Instructions => [
    [0x49, 0xb8, ...u64(data)], // mov r8, data
    [0x49, 0x8d, 0x78, POLLFD], // lea rdi, [r8 + POLLFD]
    [0xbe, ...u32(1)], // mov esi, 1
    [0x49, 0x8d, 0x50, NO_TIME], // lea rdx, [r8 + NO_TIME]
    [0x45, 0x31, 0xd2], // xor r10d, r10d
    [0xb8, ...u32(271)], // mov eax, SYS_ppoll
    [0x0f, 0x05], // syscall
    [0x83, 0xf8, 0x01], // cmp eax, 1
    [0x75, 19], // jne exit
    [0x41, 0x8b, 0x78, POLLFD], // mov edi, [r8 + POLLFD]
    [0x49, 0x8d, 0x70, LINE], // lea rsi, [r8 + LINE]
    [0x41, 0x8b, 0x50, LENGTH], // mov edx, [r8 + LENGTH]
    [0xb8, ...u32(1)], // mov eax, SYS_write
    [0x0f, 0x05], // syscall
    [0xbf, ...u32(1)], // exit: mov edi, 1
    [0xb8, ...u32(231)], // mov eax, SYS_exit_group
    [0x0f, 0x05], // syscall
  ],
  arm64: (data: number): Instructions => [
    ...movAddress(9, data), // x9 = data
    add(0, POLLFD), // add x0, x9, #POLLFD
    movz(1, 1),
    add(2, NO_TIME), // add x2, x9, #NO_TIME
    movz(3, 0),
    movz(4, 0),
    movz(8, 73), // SYS_ppoll
    u32(0xd4000001), // svc #0
    u32(0x7100041f), // cmp w0, #1
    u32(0x540000c1), // b.ne exit
    u32(0xb9400120 | ((POLLFD / 4) << 10)), // ldr w0, [x9, #POLLFD]
    add(1, LINE), // add x1, x9, #LINE
    u32(0xb9400122 | ((LENGTH / 4) << 10)), // ldr w2, [x9, #LENGTH]
    movz(8, 64), // SYS_write
    u32(0xd4000001), // svc #0
    movz(0, 1), // exit:
    movz(8, 94), // SYS_exit_group
    u32(0xd4000001), // svc #0
  ],
} as const;

function u32(value: number): readonly number[] {
  return [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24];
}

function u64(value: number): readonly number[] {
  return [...u32(value % 2 ** 32), ...u32(Math.floor(value / 2 ** 32))];
}

/** movz xN, #value */
function movz(register: number, value: number): readonly number[] {
  return u32((0xd2800000 | (value << 5) | register) >>> 0);
}

/** movz and movk: an address of up to 48 bits, the most that user space has. */
function movAddress(register: number, address: number): Instructions {
  const half = (index: number): number => Math.floor(address / 2 ** (16 * index)) % 2 ** 16;
  const movk = (index: number): readonly number[] =>
    u32((0xf2800000 | (index << 21) | (half(index) << 5) | register) >>> 0);
  return [movz(register, half(0)), movk(1), movk(2)];
}

/** add xN, x9, #value */
function add(register: number, value: number): readonly number[] {
  return u32((0x91000120 | (value << 10) | register) >>> 0);
}

export class LastResort {
  readonly #data = new Memory(AREA_BYTES);
  readonly #bytes = this.#data.bytes();
  readonly #view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset);

  /**
   * The runtime must have handlers for all of the signals. They are called as before.
   * @param signals numbers of signals.
   * @param firstMs milliseconds from the first signal to the end of the program; undefined for no limit.
   * @param secondMs milliseconds from the second signal.
   * @throws ErrnoError if memory cannot be made executable.
   */
  constructor(signals: readonly number[], firstMs: number | undefined, secondMs: number) {
    this.#setTimer(FIRST, firstMs ?? 0);
    this.#setTimer(SECOND, secondMs);
    this.fd = 2;
    this.#view.setInt16(POLLFD + 4, POLLOUT, true);
    const { arch } = process;
    if (arch !== "x64" && arch !== "arm64") return;
    const { address } = this.#data;
    const ending = executable(ENDING[arch](address));
    const counting = executable(COUNTING[arch](address));
    setHandler(SIGALRM, ending);
    for (const signal of signals) {
      const before = setHandler(signal, counting);
      // The runtime has one handler for all signals.
      if (before !== counting) this.#view.setBigUint64(HANDLER, before, true);
    }
  }

  /**
   * The program is ending by itself: cancels the time that the first signal set, or prevents it. A second signal still
   * sets one, in case the program waits for something else.
   * @param secondMs milliseconds from the second signal.
   */
  disarm(secondMs: number): void {
    this.#setTimer(FIRST, 0);
    this.#setTimer(SECOND, secondMs);
    // After two signals or more the next one counts as the second again.
    this.#view.setUint32(0, Math.min(this.#view.getUint32(0, true), 1), true);
    libc.alarm(0);
  }

  /** Forgets the signals received: cancels the time, and counts the next signal as the first. */
  forget(): void {
    this.#view.setUint32(0, 0, true);
    libc.alarm(0);
  }

  /** The message written at the end, without a newline. */
  set line(text: string) {
    const bytes = new TextEncoder().encode(`${text}\n`).subarray(0, LINE_MAX);
    this.#view.setUint32(LENGTH, 0, true);
    this.#bytes.set(bytes, LINE);
    this.#view.setUint32(LENGTH, bytes.length, true);
  }

  /** The descriptor that the message goes to. Default: stderr. */
  set fd(fd: number) {
    this.#view.setInt32(POLLFD, fd, true);
  }

  /** Writes a `struct itimerval` that expires once: seconds and microseconds. */
  #setTimer(at: number, milliseconds: number): void {
    this.#view.setBigInt64(at + 16, BigInt(Math.floor(milliseconds / 1000)), true);
    this.#view.setBigInt64(at + 24, BigInt(Math.round((milliseconds % 1000) * 1000)), true);
  }
}

/** Maps instructions as executable for as long as the program runs. Returns the address. */
function executable(instructions: Instructions): bigint {
  const memory = new Memory(AREA_BYTES);
  memory.bytes().set(instructions.flat());
  const result = negativeErrno(libc.mprotect(memory.address, AREA_BYTES, PROT_READ | PROT_EXEC));
  unwrap(result, "mprotect(PROT_EXEC)");
  return BigInt(memory.address);
}

/** sigaction(2): replaces the handler, and keeps the flags and mask of an existing one. Returns the previous one. */
function setHandler(signal: number, handler: bigint): bigint {
  const action = new DataView(new ArrayBuffer(sigaction.size));
  unwrap(negativeErrno(libc.sigaction(signal, null, ptr(action))), "sigaction");
  const before = action.getBigUint64(sigaction.sa_handler, true);
  action.setBigUint64(sigaction.sa_handler, handler, true);
  if (before === 0n) action.setInt32(sigaction.sa_flags, SA_RESTART, true);
  unwrap(negativeErrno(libc.sigaction(signal, ptr(action), null)), "sigaction");
  return before;
}
