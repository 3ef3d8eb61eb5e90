/**
 * An overlay in files in memory: another process can continue it at a moment without requests in flight. Both may have
 * it open at once and see each other's changes.
 */
import { createHash } from "node:crypto";
import { fstatSync } from "node:fs";
import { UserError } from "../errors.ts";
import { close } from "../libc/file.ts";
import { Memory } from "../libc/memory.ts";
import type { GuardState } from "../libc/memory-guard.ts";
import { BlockMap, MAP_PAGE, mapBytes, OVERLAY_BLOCK } from "./block-map.ts";
import type { MemoryFiles } from "./memory-files.ts";
import { blocksOf, type MemfdState, MemoryOverlay, reserve } from "./overlay.ts";

/** The bytes before the map: a fingerprint of the device below and its identity, zeroes until there is one. */
const HEADER_BYTES = MAP_PAGE;
const FINGERPRINT_BYTES = 32;

interface Parts {
  readonly blocksFile: number;
  readonly blocks: Memory;
  readonly map: Memory;
  readonly guard?: GuardState;
}

class MemfdOverlay extends MemoryOverlay {
  readonly state: MemfdState;
  readonly #map: Memory;
  readonly #fingerprint: Uint8Array;

  constructor(size: number, { blocksFile, blocks, map, guard }: Parts) {
    const bytes = map.bytes();
    const parts = { map: new BlockMap(blocksOf(size), bytes.subarray(HEADER_BYTES)), memory: blocks, guard };
    super(size, parts);
    this.#map = map;
    this.#fingerprint = bytes.subarray(0, FINGERPRINT_BYTES);
    this.state = {
      size,
      blocksFile,
      blocksAddress: blocks.address,
      mapAddress: map.address,
      guard: this.guardState,
    };
  }

  /** Includes the identity: the contents do not always distinguish copies of one image. */
  checkBase(contents: Uint8Array, identity = ""): void {
    const fingerprint = createHash("sha256").update(contents).update(identity).digest();
    if (this.#fingerprint.every((byte) => byte === 0)) this.#fingerprint.set(fingerprint);
    else if (Buffer.compare(fingerprint, this.#fingerprint) !== 0)
      throw new UserError(
        "the layer cow keeps changes of another device, or of other contents: give the device it was made for, unchanged",
      );
  }

  override close(): void {
    super.close();
    this.#map.close();
  }
}

/** An overlay for a device of `size` bytes: a new one, or that of the previous process. @throws UserError */
export function makeMemfdOverlay(size: number, files: MemoryFiles): MemfdOverlay {
  const bytes = blocksOf(size) * OVERLAY_BLOCK;
  const sizes = { blocks: bytes, map: HEADER_BYTES + mapBytes(blocksOf(size)) };
  const fds = files.open("cow", sizes);
  const opened: Memory[] = [];
  const open = (name: keyof typeof sizes): Memory => {
    if (fstatSync(fds[name]).size !== sizes[name])
      throw new UserError(
        "the layer cow keeps changes of a device of another size: give the one it was made for",
      );
    const memory = reserve(size, () => new Memory(sizes[name], undefined, fds[name]));
    opened.push(memory);
    return memory;
  };
  try {
    return new MemfdOverlay(size, { blocksFile: fds.blocks, blocks: open("blocks"), map: open("map") });
  } catch (error) {
    for (const memory of opened) memory.close();
    for (const fd of Object.values(fds).slice(opened.length)) close(fd);
    throw error;
  }
}

/** Opens an overlay on another thread from its state. Close it before the original. */
export function openMemfdOverlay({ size, blocksFile, guard, ...addresses }: MemfdState): MemfdOverlay {
  const bytes = blocksOf(size) * OVERLAY_BLOCK;
  const blocks = new Memory(bytes, addresses.blocksAddress, blocksFile);
  const map = new Memory(HEADER_BYTES + mapBytes(blocksOf(size)), addresses.mapAddress);
  return new MemfdOverlay(size, { blocksFile, blocks, map, guard });
}
