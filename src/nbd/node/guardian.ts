/**
 * A process that outlives the server of a node for a moment. A node that netlink attached belongs to no process, so the
 * requests that a killed server has not answered would wait for another server for ever. Therefore the smallest
 * possible process keeps the node open, waits for the end of the server, and then clears the node.
 *
 * It has the node open from the start, so that the number cannot belong to another device by then. It blocks all
 * signals; if it is killed together with the server, the next start of tsbuse clears the node.
 */
import type { Subprocess } from "bun";
import { close } from "../../libc/file.ts";
import { isClosedByPeer, sendBytes, streamSocketPair } from "../../libc/socket.ts";
import { EM_AARCH64, EM_X86_64, movz, startTinyProgram, tinyProgram, u32 } from "../../libc/tiny-program.ts";
import { GUARDIAN_NAME } from "../../nodes/openers.ts";
import { within } from "../../serving/deadline.ts";
import { NBD_CLEAR_SOCK } from "../../uapi/nbd.ts";

/** The file descriptors of the process. */
const SERVER_FD = 3;
const NODE_FD = 4;

/** How long it may take to end, in milliseconds. */
const END_LIMIT_MS = 1000;
const POLL_MS = 1;

/**
 * rt_sigprocmask(SIG_BLOCK, all, NULL, 8); if (read(SERVER_FD, sp, 1) != 1) ioctl(NODE_FD, NBD_CLEAR_SOCK, 0);
 * exit(0)
 */
export const GUARDIAN_PROGRAMS = {
  x64: () =>
    tinyProgram(EM_X86_64, [
      [0x6a, 0xff], // push -1
      [0xb8, ...u32(14)], // mov eax, SYS_rt_sigprocmask
      [0x31, 0xff], // xor edi, edi
      [0x48, 0x89, 0xe6], // mov rsi, rsp
      [0x31, 0xd2], // xor edx, edx
      [0x41, 0xba, ...u32(8)], // mov r10d, 8
      [0x0f, 0x05], // syscall
      [0x31, 0xc0], // xor eax, eax: SYS_read
      [0xbf, ...u32(SERVER_FD)], // mov edi, SERVER_FD
      [0x48, 0x89, 0xe6], // mov rsi, rsp
      [0xba, ...u32(1)], // mov edx, 1
      [0x0f, 0x05], // syscall
      [0x83, 0xf8, 0x01], // cmp eax, 1
      [0x74, 0x13], // je exit
      [0xb8, ...u32(16)], // mov eax, SYS_ioctl
      [0xbf, ...u32(NODE_FD)], // mov edi, NODE_FD
      [0xbe, ...u32(NBD_CLEAR_SOCK)], // mov esi, NBD_CLEAR_SOCK
      [0x31, 0xd2], // xor edx, edx
      [0x0f, 0x05], // syscall
      [0xb8, ...u32(60)], // exit: mov eax, SYS_exit
      [0x31, 0xff], // xor edi, edi
      [0x0f, 0x05], // syscall
    ]),
  arm64: () =>
    tinyProgram(EM_AARCH64, [
      u32(0x92800009), // mov x9, #-1
      u32(0xf81f0fe9), // str x9, [sp, #-16]!
      movz(8, 135), // SYS_rt_sigprocmask
      movz(0, 0),
      u32(0x910003e1), // mov x1, sp
      movz(2, 0),
      movz(3, 8),
      u32(0xd4000001), // svc #0
      movz(8, 63), // SYS_read
      movz(0, SERVER_FD),
      u32(0x910003e1), // mov x1, sp
      movz(2, 1),
      u32(0xd4000001), // svc #0
      u32(0xf100041f), // cmp x0, #1
      u32(0x540000c0), // b.eq exit
      movz(8, 29), // SYS_ioctl
      movz(0, NODE_FD),
      movz(1, NBD_CLEAR_SOCK),
      movz(2, 0),
      u32(0xd4000001), // svc #0
      movz(8, 93), // exit: SYS_exit
      movz(0, 0),
      u32(0xd4000001), // svc #0
    ]),
} as const;

export class Guardian {
  /**
   * @param stream ends with the last process that has it open; it belongs to this object from now on.
   * @param process absent if another process has started it.
   */
  constructor(
    readonly stream: number,
    readonly process?: Subprocess,
  ) {}

  /**
   * @param node the node, open; it remains the caller's.
   * @throws Error if this system cannot run such a process.
   */
  static start(node: number): Guardian {
    const { arch } = process;
    if (arch !== "x64" && arch !== "arm64") throw new Error(`no program for ${arch}`);
    const [ours, its] = streamSocketPair();
    try {
      return new Guardian(ours, startTinyProgram(GUARDIAN_PROGRAMS[arch](), GUARDIAN_NAME, [its, node]));
    } catch (error) {
      close(ours);
      throw error;
    } finally {
      close(its);
    }
  }

  /** Lets it end without doing anything. Settles when it has, and so has closed the node. */
  async dismiss(): Promise<void> {
    sendBytes(this.stream, Uint8Array.of(1));
    await within(this.process?.exited ?? this.#isGone(), END_LIMIT_MS);
    this.leave();
  }

  /** Leaves it to the other processes that have the stream. */
  leave(): void {
    close(this.stream);
  }

  /** For a process that is not our child: its end of the stream closes a moment before the node. */
  async #isGone(): Promise<void> {
    const deadline = performance.now() + END_LIMIT_MS;
    while (!isClosedByPeer(this.stream) && performance.now() < deadline) await Bun.sleep(POLL_MS);
    await Bun.sleep(POLL_MS);
  }
}
