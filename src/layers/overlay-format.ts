/**
 * The layout of an overlay file: a header of one block, the map, the data, in which each block has the same offset as
 * in the device, and the recent map. The file is sparse except for the maps. Numbers are little-endian.
 *
 * The map says which blocks count after a crash of the system: a flush writes it after it has made their data durable.
 * The recent map says so after the death of a process, when the system still has everything that was written. It is
 * written before a change is acknowledged, and trusted only in the boot and on the file system that the header names:
 * another disk, or this one under another device number, may lack what was in the page cache.
 *
 * If a disk fails or disappears under the mounted file system and returns under the same device number, that goes
 * unnoticed. The header does not name the mount: unmounting stores everything that was written, and each mount
 * namespace, such as that of a restarted service, has other numbers for the same mounts.
 *
 * Version 1 has neither the recent map nor the header fields after `dataOffset`.
 *
 * Changes of the header are atomic: the mark that makes a field count is a single byte, written after the field.
 */
import { createHash } from "node:crypto";
import { UserError } from "../errors.ts";
import { readAttribute } from "../libc/sysfs.ts";
import { mapBytes, OVERLAY_BLOCK } from "./block-map.ts";

export interface Layout {
  /** Bytes of the device. */
  readonly size: number;
  readonly mapOffset: number;
  readonly dataOffset: number;
  readonly recentOffset: number;
  /** Bytes of the file. */
  readonly fileSize: number;
}

export const HEADER_BYTES = OVERLAY_BLOCK;
const MAGIC = "tsbuse overlay\n\0";
/** The version of new files. */
export const VERSION = 2;
/** The data begins at a multiple of this, which is aligned for any file system and disk. */
const DATA_ALIGNMENT = 2 ** 20;

/** Offsets of the fields of the header, in bytes. */
export const field = {
  magic: 0,
  version: 16,
  blockSize: 20,
  size: 24,
  mapOffset: 32,
  dataOffset: 40,
  recentOffset: 48,
  /** Where the recent map counts: see {@link bootOn}. */
  boot: 56,
  /** The fingerprint of the device below. */
  fingerprint: 72,
  state: 104,
  end: 108,
} as const;

/** The progress of making an overlay. */
export const state = { begun: 0, made: 1, fingerprinted: 2 } as const;

const BOOT_BYTES = 16;
const FINGERPRINT_BYTES = 32;
/** For a file that was closed after a flush: the map alone is complete. */
export const CLOSED: Uint8Array = new Uint8Array(new ArrayBuffer(BOOT_BYTES));
/** No boot has this value: ignore the recent map. */
export const NO_BOOT: Uint8Array = new Uint8Array(new ArrayBuffer(BOOT_BYTES)).fill(0xff);

/** The contents of a header, without the layout. */
export interface Header {
  readonly version: number;
  readonly boot: Uint8Array;
  readonly fingerprint: Uint8Array | undefined;
}

/** The layout for a device of `size` bytes in `blocks` blocks. */
export function layoutFor(size: number, blocks: number): Layout {
  const mapOffset = HEADER_BYTES;
  const dataOffset = Math.ceil((mapOffset + mapBytes(blocks)) / DATA_ALIGNMENT) * DATA_ALIGNMENT;
  const recentOffset = dataOffset + blocks * OVERLAY_BLOCK;
  return { size, mapOffset, dataOffset, recentOffset, fileSize: recentOffset + mapBytes(blocks) };
}

/** The header of a file that is being made. */
export function encodeHeader(layout: Layout): Uint8Array {
  const header = new Uint8Array(new ArrayBuffer(HEADER_BYTES));
  const view = new DataView(header.buffer);
  header.set(Buffer.from(MAGIC, "latin1"), field.magic);
  view.setUint32(field.version, VERSION, true);
  view.setUint32(field.blockSize, OVERLAY_BLOCK, true);
  view.setBigUint64(field.size, BigInt(layout.size), true);
  view.setBigUint64(field.mapOffset, BigInt(layout.mapOffset), true);
  view.setBigUint64(field.dataOffset, BigInt(layout.dataOffset), true);
  view.setBigUint64(field.recentOffset, BigInt(layout.recentOffset), true);
  return header;
}

/** A number in the format of the fields. */
export function encodeNumber(value: number): Uint8Array {
  const bytes = new Uint8Array(new ArrayBuffer(4));
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}

/**
 * Reads the header; undefined if the file was never completely made and so holds nothing.
 * @param header the first block, with zeroes after the end of the file.
 * @throws UserError for every file that is not an overlay of this layout.
 */
export function decodeHeader(
  path: string,
  header: Uint8Array,
  layout: Layout,
  fileSize: number,
): Header | undefined {
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  const isOurs = Buffer.from(header.subarray(0, MAGIC.length)).toString("latin1") === MAGIC;
  const version = view.getUint32(field.version, true);
  // The header reaches the disk before the file grows, and says "made" only after that: a short file was cut off.
  const isMade = version === VERSION && view.getUint32(field.state, true) !== state.begun;
  if (fileSize <= HEADER_BYTES && !isMade && (isOurs || header.every((byte) => byte === 0))) return undefined;
  if (!isOurs)
    throw new UserError(`${path} is not an overlay of tsbuse: give another name, or remove it first`);
  if (version < 1 || version > VERSION) {
    throw new UserError(
      `${path} is an overlay of version ${version}, this tsbuse knows 1 to ${VERSION}: use the one it was made with`,
    );
  }
  const progress = version === 1 ? state.made : view.getUint32(field.state, true);
  if (progress === state.begun) return undefined;
  checkLayout(path, view, layout, version === 1 ? layout.recentOffset : layout.fileSize, fileSize);
  const isKnown = progress === state.fingerprinted;
  return {
    version,
    boot: version === 1 ? NO_BOOT : header.slice(field.boot, field.boot + BOOT_BYTES),
    fingerprint: isKnown ? header.slice(field.fingerprint, field.fingerprint + FINGERPRINT_BYTES) : undefined,
  };
}

/** @throws UserError */
function checkLayout(path: string, view: DataView, layout: Layout, needed: number, fileSize: number): void {
  const size = view.getBigUint64(field.size, true);
  if (size !== BigInt(layout.size)) {
    throw new UserError(
      `${path} is an overlay of a device of ${size} bytes, this one has ${layout.size}: give the one it was made for`,
    );
  }
  const isWhole =
    view.getUint32(field.blockSize, true) === OVERLAY_BLOCK &&
    view.getBigUint64(field.mapOffset, true) === BigInt(layout.mapOffset) &&
    view.getBigUint64(field.dataOffset, true) === BigInt(layout.dataOffset) &&
    fileSize >= needed;
  if (!isWhole) throw new UserError(`${path} is a damaged overlay: restore it, or remove it first`);
}

/**
 * A name for this boot of the system and a file system in it; {@link NO_BOOT} if the boot's ID is unknown.
 * @param device the file system's st_dev.
 */
export function bootOn(device: bigint): Uint8Array {
  const boot = readAttribute("/proc/sys/kernel/random/boot_id");
  if (boot === undefined) return NO_BOOT;
  const hash = createHash("sha256").update(`${boot} ${device}`).digest();
  return new Uint8Array(hash.subarray(0, BOOT_BYTES));
}
