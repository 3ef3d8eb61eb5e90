/**
 * The layout of an overlay file: a header of one block, the map, and the data, in which a block is as far from the
 * beginning as it is in the device. The file is sparse. Numbers are little-endian.
 */
import { UserError } from "../errors.ts";
import { mapBytes, OVERLAY_BLOCK } from "./block-map.ts";

export interface Layout {
  /** Bytes of the device. */
  readonly size: number;
  readonly mapOffset: number;
  readonly dataOffset: number;
  /** Bytes of the file. */
  readonly fileSize: number;
}

export const HEADER_BYTES = OVERLAY_BLOCK;
const MAGIC = "tsbuse overlay\n\0";
const VERSION = 1;
/** The data begins at a multiple of this, so that it is aligned for any file system and disk. */
const DATA_ALIGNMENT = 2 ** 20;

/** Offsets of the fields of the header, in bytes. */
const field = {
  magic: 0,
  version: 16,
  blockSize: 20,
  size: 24,
  mapOffset: 32,
  dataOffset: 40,
} as const;

/** Of a device of `size` bytes, which has so many blocks. */
export function layoutFor(size: number, blocks: number): Layout {
  const mapOffset = HEADER_BYTES;
  const dataOffset = Math.ceil((mapOffset + mapBytes(blocks)) / DATA_ALIGNMENT) * DATA_ALIGNMENT;
  return { size, mapOffset, dataOffset, fileSize: dataOffset + blocks * OVERLAY_BLOCK };
}

export function encodeHeader(layout: Layout): Uint8Array {
  const header = new Uint8Array(new ArrayBuffer(HEADER_BYTES));
  const view = new DataView(header.buffer);
  header.set(Buffer.from(MAGIC, "latin1"), field.magic);
  view.setUint32(field.version, VERSION, true);
  view.setUint32(field.blockSize, OVERLAY_BLOCK, true);
  view.setBigUint64(field.size, BigInt(layout.size), true);
  view.setBigUint64(field.mapOffset, BigInt(layout.mapOffset), true);
  view.setBigUint64(field.dataOffset, BigInt(layout.dataOffset), true);
  return header;
}

/** Refuses every file that is not an overlay of this layout. @throws UserError */
export function checkHeader(path: string, header: Uint8Array, layout: Layout, fileSize: number): void {
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  if (Buffer.from(header.subarray(0, MAGIC.length)).toString("latin1") !== MAGIC) {
    throw new UserError(`${path} is not an overlay of tsbuse: give another name, or remove it first`);
  }
  const version = view.getUint32(field.version, true);
  if (version !== VERSION) {
    throw new UserError(
      `${path} is an overlay of version ${version}, this tsbuse knows ${VERSION}: use the one it was made with`,
    );
  }
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
    fileSize >= layout.fileSize;
  if (!isWhole) throw new UserError(`${path} is an overlay that is damaged: restore it, or remove it first`);
}
