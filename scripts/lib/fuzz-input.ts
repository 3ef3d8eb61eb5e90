/** Valid NBD bytes, and faults to put into them. Everything follows from the seed. */
import { Random } from "../../src/values/random.ts";

const IHAVEOPT = 0x49484156454f5054n;
const REQUEST_MAGIC = 0x25609513;
/** Numbers that programs get wrong. */
const EDGES = [
  0,
  1,
  2,
  511,
  512,
  513,
  4095,
  4096,
  4097,
  65_535,
  65_536,
  2 ** 20,
  2 ** 25,
  2 ** 25 + 1,
] as const;
const LARGE_EDGES = [2 ** 31 - 1, 2 ** 31, 2 ** 32 - 512, 2 ** 32 - 1] as const;
const CLIENT_FLAGS = [3, 3, 3, 3, 3, 1, 0, 2, 7];
const OPTIONS = [1, 2, 3, 5, 6, 6, 7, 7, 8, 8, 9, 10, 10, 11, 99];
const COMMANDS = [0, 0, 1, 1, 3, 4, 6, 7, 7, 5, 9];
const NAMES = ["", "disk", "disk", "other", "d\u{ef}sk"];
const QUERIES = ["base:allocation", "base:", "qemu:dirty-bitmap:x", ""];

const encoder = new TextEncoder();

/** Numbers and pieces of bytes as an attacker would choose them. */
export class FuzzRandom extends Random {
  edge(): number {
    return this.oneIn(8) ? this.pick(LARGE_EDGES) : this.pick(EDGES);
  }

  /** The bytes in one piece or several. */
  pieces(bytes: Uint8Array): Uint8Array[] {
    if (this.oneIn(2)) return [bytes];
    const pieces: Uint8Array[] = [];
    for (let at = 0; at < bytes.length;) {
      const end = at + 1 + this.below(this.oneIn(4) ? 4 : 64);
      pieces.push(bytes.subarray(at, end));
      at = end;
    }
    return pieces;
  }
}

/** The client's flags and a few options. */
export function randomHandshake(random: FuzzRandom): Uint8Array {
  const parts: Uint8Array[] = [word(random.pick(CLIENT_FLAGS))];
  for (let left = 1 + random.below(5); left > 0; left -= 1) {
    const type = random.pick(OPTIONS);
    parts.push(option(type, optionData(random, type)));
  }
  return Buffer.concat(parts);
}

/** A request, and the payload of a write. */
export function randomRequest(random: FuzzRandom, deviceBytes: number): Uint8Array {
  const command = random.pick(COMMANDS);
  const blocks = deviceBytes / 512;
  const length = random.oneIn(8) ? random.edge() : 512 * (1 + random.below(4));
  const offset = random.oneIn(8) ? random.edge() : 512 * random.below(blocks);
  const payload = command === 1 && length < 4096 ? length : 0;
  const bytes = new Uint8Array(28 + payload);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, REQUEST_MAGIC);
  view.setUint16(4, random.oneIn(4) ? random.below(random.oneIn(4) ? 65_536 : 16) : 0);
  view.setUint16(6, command);
  view.setUint32(8, random.word());
  view.setUint32(20, offset);
  view.setUint32(24, length);
  if (random.oneIn(64)) view.setUint32(16, random.edge());
  return bytes;
}

/** Puts one or more faults into most inputs. */
export function mutate(random: FuzzRandom, bytes: Uint8Array): Uint8Array {
  let mutated = bytes;
  while (mutated.length > 0 && !random.oneIn(3)) mutated = faulty(random, mutated);
  return mutated;
}

function faulty(random: FuzzRandom, bytes: Uint8Array): Uint8Array {
  const at = random.below(bytes.length);
  switch (random.below(6)) {
    case 0:
      return bytes.slice(0, at);
    case 1: {
      const flipped = bytes.slice();
      flipped[at] = (flipped[at] ?? 0) ^ (1 << random.below(8));
      return flipped;
    }
    case 2: {
      // Overwrites a number, which may be a length.
      const changed = bytes.slice();
      const place = Math.min(Math.floor(at / 4) * 4, bytes.length - 4);
      if (place >= 0) new DataView(changed.buffer).setUint32(place, random.edge());
      return changed;
    }
    case 3:
      return Buffer.concat([bytes.subarray(0, at), noise(random), bytes.subarray(at)]);
    case 4:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1 + random.below(8))]);
    default:
      return Buffer.concat([bytes, bytes.subarray(at, at + 64)]);
  }
}

function noise(random: FuzzRandom): Uint8Array {
  return Uint8Array.from({ length: 1 + random.below(40) }, () => random.word());
}

function optionData(random: FuzzRandom, type: number): Uint8Array {
  const name = random.pick(NAMES);
  if (type === 1) return encoder.encode(name);
  if (type === 6 || type === 7) {
    const infos = Array.from({ length: random.below(4) }, () => half(random.below(6)));
    return Buffer.concat([text(name), half(infos.length), ...infos]);
  }
  if (type === 9 || type === 10) {
    const queries = Array.from({ length: random.below(4) }, () => text(random.pick(QUERIES)));
    return Buffer.concat([text(name), word(queries.length), ...queries]);
  }
  return random.oneIn(4) ? noise(random) : new Uint8Array();
}

function option(type: number, data: Uint8Array): Uint8Array {
  const header = new Uint8Array(16);
  const view = new DataView(header.buffer);
  view.setBigUint64(0, IHAVEOPT);
  view.setUint32(8, type);
  view.setUint32(12, data.length);
  return Buffer.concat([header, data]);
}

function text(value: string): Uint8Array {
  const bytes = encoder.encode(value);
  return Buffer.concat([word(bytes.length), bytes]);
}

function word(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value);
  return bytes;
}

function half(value: number): Uint8Array {
  return Uint8Array.of(value >>> 8, value & 0xff);
}
