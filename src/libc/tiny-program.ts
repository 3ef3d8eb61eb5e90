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
/** The load address, the usual one of a program that is not position-independent. */
const BASE = 0x400000n;
/** The largest page size of a kernel, 64 KiB, which {@link BASE} is a multiple of. */
const ALIGNMENT = 0x10000n;
/** The address of the first instruction. */
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
 * @param instructions the bytes of each; execution begins with the first.
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

/** The bytes of a number in an x86-64 instruction, or of an arm64 instruction. */
export function u32(value: number): readonly number[] {
  return [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24];
}

/** arm64: mov xN, #value */
export function movz(register: number, value: number): readonly number[] {
  return u32((0xd2800000 | (value << 5) | register) >>> 0);
}

const running = new Set<number>();

/** Whether a child is a tiny program whose end the runtime has not reported yet. */
export function isTinyProgram(pid: number): boolean {
  return running.has(pid);
}

/**
 * Starts a program in a session of its own, so that signals to this process's group do not reach it. It does not keep
 * this process alive.
 * @param files its descriptors from 3 on; it has no others except the standard ones.
 * @throws Error if this system cannot run the program.
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
