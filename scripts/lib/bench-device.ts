/** A store in memory whose methods return promises: what `bun run bench vm` runs by `tsbuse run`. */
import type { BlockDevice } from "tsbuse";

const bytes = new Uint8Array(256 * 2 ** 20);

const device: BlockDevice = {
  size: bytes.length,
  read: async (target, offset) => target.set(bytes.subarray(offset, offset + target.length)),
  write: async (source, offset) => bytes.set(source, offset),
};

export default device;
