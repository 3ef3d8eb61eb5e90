/**
 * The part of ELF that detaches a program from the system's C library: the loader that the program names, and where
 * that looks for libraries. Names and numbers as in elf.h.
 */
import { Failure } from "./failure.ts";

/** Offsets in an Elf64_Ehdr. */
const E_PHOFF = 32;
const E_PHENTSIZE = 54;
const E_PHNUM = 56;

/** Offsets in an Elf64_Phdr. */
const P_TYPE = 0;
const P_OFFSET = 8;
const P_VADDR = 16;
const P_FILESZ = 32;
const P_MEMSZ = 40;

const PT_LOAD = 1;
const PT_DYNAMIC = 2;
const PT_INTERP = 3;

/** An Elf64_Dyn: a tag and a value. */
const DYN_SIZE = 16;
const DT_NEEDED = 1;
const DT_STRTAB = 5;
const DT_RPATH = 15;
/** The entry in which the loader leaves its list of libraries for a debugger. Nothing else needs it. */
const DT_DEBUG = 21;

/** "\x7fELF", 64 bits, little-endian. */
const IDENT = [0x7f, 0x45, 0x4c, 0x46, 2, 1];

interface Segment {
  /** The offset of its header in the file. */
  readonly header: number;
  readonly type: number;
  readonly offset: number;
  readonly address: number;
  readonly length: number;
  readonly memoryLength: number;
}

/** The loader that the program in `image` names. @throws Failure if it is static, or not for a 64-bit Linux. */
export function loaderOf(image: Uint8Array): string {
  const { offset, length } = only(segmentsOf(viewOf(image)), PT_INTERP);
  return Buffer.from(image.subarray(offset, offset + length))
    .toString()
    .replace(/\0.*$/s, "");
}

/** The names of the libraries that the program or library in `image` itself needs. @throws Failure */
export function librariesNeededBy(image: Uint8Array): readonly string[] {
  const view = viewOf(image);
  const segments = segmentsOf(view);
  const dynamic = only(segments, PT_DYNAMIC);
  const strings = number(view, entryOf(view, dynamic, DT_STRTAB) + 8);
  const home = segments.find(
    ({ type, address, length }) => type === PT_LOAD && strings >= address && strings < address + length,
  );
  if (home === undefined) throw unfit("its names are in no segment");
  const names: string[] = [];
  for (let at = dynamic.offset; at < dynamic.offset + dynamic.length; at += DYN_SIZE) {
    if (number(view, at) !== DT_NEEDED) continue;
    const start = home.offset + (strings - home.address) + number(view, at + 8);
    names.push(Buffer.from(image.subarray(start, image.indexOf(0, start))).toString());
  }
  return names;
}

/**
 * A copy of the program in `image` that names `loader`, which looks in `directory` first for the program's libraries
 * and for those that they need in turn. Nothing moves: the path of the loader replaces the old one, the name of the
 * directory goes behind the first segment, and DT_RPATH takes the place of DT_DEBUG.
 *
 * @throws Failure if there is no room.
 */
export function withLoader(image: Uint8Array, loader: string, directory: string): Uint8Array<ArrayBuffer> {
  const moved = new Uint8Array(image);
  const view = viewOf(moved);
  const segments = segmentsOf(view);

  const interpreter = only(segments, PT_INTERP);
  const loaderText = terminated(loader);
  if (loaderText.length > interpreter.length) throw unfit(`${loader} is too long for its place`);
  moved.fill(0, interpreter.offset, interpreter.offset + interpreter.length);
  moved.set(loaderText, interpreter.offset);
  setNumber(view, interpreter.header + P_FILESZ, loaderText.length);
  setNumber(view, interpreter.header + P_MEMSZ, loaderText.length);

  const address = appendToSegment(moved, segments, terminated(directory));
  const dynamic = only(segments, PT_DYNAMIC);
  const strings = number(view, entryOf(view, dynamic, DT_STRTAB) + 8);
  const entry = entryOf(view, dynamic, DT_DEBUG);
  setNumber(view, entry, DT_RPATH);
  setNumber(view, entry + 8, address - strings);
  return moved;
}

/** Puts `bytes` between the first loaded segment and the next one, and returns their address. */
function appendToSegment(image: Uint8Array, segments: readonly Segment[], bytes: Uint8Array): number {
  const [first, second] = segments.filter(({ type }) => type === PT_LOAD);
  if (first === undefined || second === undefined) throw unfit("it has only one segment");
  const end = first.offset + first.length;
  const gap = image.subarray(end, Math.max(end, second.offset));
  const fits =
    first.memoryLength === first.length && first.address + first.length + bytes.length < second.address;
  if (!fits || gap.length < bytes.length || gap.some((byte) => byte !== 0)) {
    throw unfit("there is no room behind its first segment");
  }
  image.set(bytes, end);
  setNumber(viewOf(image), first.header + P_FILESZ, first.length + bytes.length);
  setNumber(viewOf(image), first.header + P_MEMSZ, first.length + bytes.length);
  return first.address + first.length;
}

function segmentsOf(view: DataView): readonly Segment[] {
  if (IDENT.some((byte, index) => view.getUint8(index) !== byte)) throw unfit("it is not a 64-bit ELF file");
  const table = number(view, E_PHOFF);
  const size = view.getUint16(E_PHENTSIZE, true);
  return Array.from({ length: view.getUint16(E_PHNUM, true) }, (_, index) => {
    const header = table + index * size;
    return {
      header,
      type: view.getUint32(header + P_TYPE, true),
      offset: number(view, header + P_OFFSET),
      address: number(view, header + P_VADDR),
      length: number(view, header + P_FILESZ),
      memoryLength: number(view, header + P_MEMSZ),
    };
  });
}

function only(segments: readonly Segment[], type: number): Segment {
  const found = segments.find((segment) => segment.type === type);
  if (found === undefined) throw unfit("it is not linked dynamically");
  return found;
}

/** The offset in the file of the entry with a tag. */
function entryOf(view: DataView, dynamic: Segment, tag: number): number {
  for (let at = dynamic.offset; at < dynamic.offset + dynamic.length; at += DYN_SIZE) {
    if (number(view, at) === tag) return at;
  }
  throw unfit(`its dynamic section lacks the tag ${tag}`);
}

function terminated(text: string): Uint8Array {
  return Buffer.from(`${text}\0`);
}

function viewOf(image: Uint8Array): DataView {
  return new DataView(image.buffer, image.byteOffset, image.byteLength);
}

function number(view: DataView, at: number): number {
  return Number(view.getBigUint64(at, true));
}

function setNumber(view: DataView, at: number, value: number): void {
  view.setBigUint64(at, BigInt.asUintN(64, BigInt(value)), true);
}

function unfit(reason: string): Failure {
  return new Failure(`the program cannot get a loader of its own: ${reason}; build it with the pinned bun`);
}
