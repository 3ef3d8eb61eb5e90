/**
 * Which device a node shows, for a node that outlives its server: only the same device takes it over, whichever driver
 * the node is of. A short text, made to be kept and compared as it is and to be read by people:
 *
 *     loop:254:1/1234/1795284449307258627@0 block=512 rw
 *
 * First what the device says of itself, see BlockDevice, behind the layers that data passes on the way and the module
 * that it comes from, or a hash of that where it is too long or not printable; then what the node's users have been
 * told, and what cannot become otherwise under them. Not the size, which can.
 */
import { createHash } from "node:crypto";
import type { BlockDevice } from "./device.ts";

/** What an attachment adds to a device. */
interface Attached {
  /** The module that the device comes from: its path. */
  readonly origin?: string | undefined;
  readonly blockSize: number;
  readonly write: boolean;
}

/** What a device may say of itself, and what layers and a path may add before it is hashed, in characters. */
export const IDENTITY_MAX = 1000;
/** They would end a line where the text is kept, or move the cursor where it is shown. */
const UNPRINTABLE = /[\p{Cc}\p{Zl}\p{Zp}]/gu;

/** Undefined for a device whose data is lost with this process. Does not fail, whatever the device says. */
export function identityOf(device: BlockDevice, { origin, blockSize, write }: Attached): string | undefined {
  const own = device.identity;
  // An empty text tells nothing apart.
  if (own === undefined || own === "") return undefined;
  const text = origin === undefined ? own : `${origin.replaceAll(UNPRINTABLE, encodeURIComponent)}:${own}`;
  return `${isIdentity(text) ? text : hashOf(text)} block=${blockSize} ${write ? "rw" : "ro"}`;
}

export function isIdentity(text: string): boolean {
  return text.length > 0 && text.length <= IDENTITY_MAX && text.search(UNPRINTABLE) < 0;
}

function hashOf(text: string): string {
  return `sha256:${createHash("sha256").update(text).digest("hex")}`;
}
