/**
 * Which device a node shows, for a node that outlives its server: only the same device may take it over, with either
 * driver. A short text that is stored and compared as it is, and that people can read:
 *
 *     loop:254:1/1234/1795284449307258627@0 block=512 rw
 *
 * First the device's own identity (see BlockDevice) behind its layers and its module, or a hash of all that if it is
 * too long or not printable; then what the node's users have been told and what must not change under them. Not the
 * size, which may change.
 */
import { createHash } from "node:crypto";
import type { BlockDevice } from "./device.ts";

/** What an attachment adds to a device's identity. */
interface Attached {
  /** The module that the device comes from: its path. */
  readonly origin?: string | undefined;
  readonly blockSize: number;
  readonly write: boolean;
}

/** The longest identity of a device, and the longest text that is not hashed, in characters. */
export const IDENTITY_MAX = 1000;
/** Characters that would end a line where the text is stored, or move the cursor where it is shown. */
const UNPRINTABLE = /[\p{Cc}\p{Zl}\p{Zp}]/gu;

/** Undefined for a device whose data is lost with this process. Does not fail, whatever the device says. */
export function identityOf(device: BlockDevice, { origin, blockSize, write }: Attached): string | undefined {
  const own = device.identity;
  // An empty text distinguishes nothing.
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
