/** An executable of a few instructions: elf(5), with one segment that holds the whole file, headers included. */
import { writeSync } from "node:fs";
import type { Subprocess } from "bun";
import { close } from "./file.ts";
import { createMemoryFile } from "./memfd.ts";

export const EM_X86_64 = 62;
export const EM_AARCH64 = 183;

const ELF_HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;
const CODE_OFFSET = ELF_HEADER_BYTES + PROGRAM_HEADER_BYTES;
/** Where it is loaded: where the linker puts a program that is not to be moved. */
const BASE = 0x400000n;
/** {@link BASE} is a multiple of the largest page that a kernel has: 64 KiB. */
const ALIGNMENT = 0x10000n;
/** Where the first instruction is. */
export const CODE_ADDRESS = Number(BASE) + CODE_OFFSET;

const ET_EXEC = 2;
const EV_CURRENT = 1;
const PT_LOAD = 1;
const PF_X_PF_R = 5;
/** e_ident: magic, 64 bits, little-endian, version. */
const IDENT = [0x7f, 0x45, 0x4c, 0x46, 2, 1, EV_CURRENT];

/**
 * The file's bytes.
 * @param machine EM_* of elf.h.
 * @param instructions the bytes of each; it begins with the first.
 */
export function tinyProgram(machine: number, instructions: readonly (readonly number[])[]): Uint8Array {
  const code = instructions.flat();
  const file = new Uint8Array(CODE_OFFSET + code.length);
  const view = new DataView(file.buffer);
  file.set(IDENT);
  view.setUint16(16, ET_EXEC, true); // e_type
  view.setUint16(18, machine, true); // e_machine
  view.setUint32(20, EV_CURRENT, true); // e_version
  view.setBigUint64(24, BASE + BigInt(CODE_OFFSET), true); // e_entry
  view.setBigUint64(32, BigInt(ELF_HEADER_BYTES), true); // e_phoff
  view.setUint16(52, ELF_HEADER_BYTES, true); // e_ehsize
  view.setUint16(54, PROGRAM_HEADER_BYTES, true); // e_phentsize
  view.setUint16(56, 1, true); // e_phnum

  const segment = ELF_HEADER_BYTES;
  view.setUint32(segment, PT_LOAD, true); // p_type
  view.setUint32(segment + 4, PF_X_PF_R, true); // p_flags
  view.setBigUint64(segment + 16, BASE, true); // p_vaddr
  view.setBigUint64(segment + 24, BASE, true); // p_paddr
  view.setBigUint64(segment + 32, BigInt(file.length), true); // p_filesz
  view.setBigUint64(segment + 40, BigInt(file.length), true); // p_memsz
  view.setBigUint64(segment + 48, ALIGNMENT, true); // p_align
  file.set(code, CODE_OFFSET);
  return file;
}

/** The bytes of a number, as x86-64 has it in an instruction, or of an instruction of arm64. */
export function u32(value: number): readonly number[] {
  return [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24];
}

/** arm64: mov xN, #value */
export function movz(register: number, value: number): readonly number[] {
  return u32((0xd2800000 | (value << 5) | register) >>> 0);
}

const running = new Set<number>();

/** Whether a child is one of these, whose end the runtime has not told yet. */
export function isTinyProgram(pid: number): boolean {
  return running.has(pid);
}

/**
 * Starts a program as a process of its own session, so that signals of this one's group do not reach it. It does not
 * keep this process alive.
 * @param files it finds from descriptor 3 on, and no others beside its standard ones.
 * @throws Error where this system runs no such program.
 */
export function startTinyProgram(program: Uint8Array, argv0: string, files: readonly number[]): Subprocess {
  const file = createMemoryFile(true);
  try {
    writeSync(file, program);
    const child = Bun.spawn([`/proc/${process.pid}/fd/${file}`], {
      argv0,
      stdio: ["ignore", "ignore", "ignore", ...files],
      env: {},
      cwd: "/",
      detached: true,
    });
    child.unref();
    const { pid } = child;
    running.add(pid);
    void child.exited.finally(() => running.delete(pid));
    return child;
  } finally {
    close(file);
  }
}
