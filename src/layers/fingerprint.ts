/**
 * What tells a device from others of the same size, wherever its file lies and whatever it is called: what it holds at
 * its beginning, where partition tables and file systems have their identifiers, and in places all over it.
 */
import { createHash } from "node:crypto";
import type { BlockDevice } from "../device.ts";
import { Memory } from "../libc/memory.ts";
import { adoptDone } from "../values/promise.ts";
import { allDone, type Done } from "./around.ts";
import { OVERLAY_BLOCK } from "./block-map.ts";

/** Bytes at the beginning: with the headers of ext4, XFS, Btrfs, LVM and partition tables. */
const HEAD_BYTES = 128 * 1024;
/** How many blocks are looked at, spread evenly; one of them is the last. */
const PLACES = 64;

/** 32 bytes, always the same for the same contents. Fails as a read of the device does. */
export async function fingerprint(device: BlockDevice): Promise<Uint8Array> {
  const ranges = rangesOf(device.size);
  // Memory of its own is aligned as direct I/O asks.
  const memory = new Memory(ranges.reduce((sum, { length }) => sum + length, 0));
  const bytes = memory.bytes();
  let at = 0;
  const pending = ranges.map(async ({ offset, length }): Promise<void> => {
    const part = bytes.subarray(at, at + length);
    at += length;
    const done: Done = adoptDone(device.read(part, offset));
    await done;
  });
  try {
    await allDone(pending);
    return new Uint8Array(createHash("sha256").update(`${device.size}\n`).update(bytes).digest());
  } finally {
    memory.close();
  }
}

/** In order, none twice, of whole blocks but at the end of the device. */
function rangesOf(size: number): readonly { readonly offset: number; readonly length: number }[] {
  const head = Math.min(HEAD_BYTES, size);
  const lastBlock = Math.ceil(size / OVERLAY_BLOCK) - 1;
  const blocks = Array.from({ length: PLACES }, (_, index) => Math.floor((lastBlock * (index + 1)) / PLACES));
  const offsets = [...new Set(blocks)]
    .map((block) => block * OVERLAY_BLOCK)
    .filter((offset) => offset >= head);
  return [
    { offset: 0, length: head },
    ...offsets.map((offset) => ({ offset, length: Math.min(OVERLAY_BLOCK, size - offset) })),
  ];
}
