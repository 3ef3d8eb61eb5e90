/** What a server says about an export, and which of it must still hold after a reconnection. */
import {
  NBD_FLAG_CAN_MULTI_CONN,
  NBD_FLAG_READ_ONLY,
  NBD_FLAG_ROTATIONAL,
  NBD_FLAG_SEND_FLUSH,
  NBD_FLAG_SEND_FUA,
  NBD_FLAG_SEND_TRIM,
  NBD_FLAG_SEND_WRITE_ZEROES,
} from "../../uapi/nbd.ts";

export interface ExportFacts {
  /** Bytes: any number of them. */
  readonly size: number;
  /** NBD_FLAG_*. */
  readonly flags: number;
  /** The required alignment of requests, in bytes. */
  readonly blockBytes: number;
  /** The longest payload, in bytes. */
  readonly payloadBytes: number;
  /** Replies may be structured ones. */
  readonly structured: boolean;
  /** The number of `base:allocation`; -1 where the server has none. */
  readonly allocationId: number;
}

export function isReadOnly({ flags }: ExportFacts): boolean {
  return (flags & NBD_FLAG_READ_ONLY) !== 0;
}

/** The facts for a reader, for whom it does not matter whether the export is writable, now or later. */
export function asReadOnly(facts: ExportFacts): ExportFacts {
  return { ...facts, flags: facts.flags | NBD_FLAG_READ_ONLY };
}

export function canFlush({ flags }: ExportFacts): boolean {
  return (flags & NBD_FLAG_SEND_FLUSH) !== 0;
}

export function canForce({ flags }: ExportFacts): boolean {
  return (flags & NBD_FLAG_SEND_FUA) !== 0;
}

export function canTrim({ flags }: ExportFacts): boolean {
  return (flags & NBD_FLAG_SEND_TRIM) !== 0;
}

export function canWriteZeroes({ flags }: ExportFacts): boolean {
  return (flags & NBD_FLAG_SEND_WRITE_ZEROES) !== 0;
}

export function isRotational({ flags }: ExportFacts): boolean {
  return (flags & NBD_FLAG_ROTATIONAL) !== 0;
}

/** Whether a flush on one connection covers the writes of all. */
export function isShareable({ flags }: ExportFacts): boolean {
  return (flags & NBD_FLAG_CAN_MULTI_CONN) !== 0;
}

/** What users of the device were promised and no longer holds: the rest of a sentence. Undefined if all holds. */
export function whyOther(before: ExportFacts, now: ExportFacts): string | undefined {
  if (now.size !== before.size) return `has ${now.size} bytes now, and had ${before.size}`;
  if (now.blockBytes > before.blockBytes) return `asks for blocks of ${now.blockBytes} bytes now`;
  if (now.payloadBytes < before.payloadBytes)
    return `takes ${now.payloadBytes} bytes at once now, and took ${before.payloadBytes}`;
  if (before.allocationId >= 0 && now.allocationId < 0) return "does not tell its holes any more";
  if (isReadOnly(before)) return undefined;
  if (isReadOnly(now)) return "is read-only now";
  const abilities = NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES;
  const missing = before.flags & ~now.flags & abilities;
  return missing === 0 ? undefined : `does not offer ${nameOf(missing)} any more`;
}

function nameOf(abilities: number): string {
  if ((abilities & NBD_FLAG_SEND_FLUSH) !== 0) return "flushes";
  if ((abilities & NBD_FLAG_SEND_FUA) !== 0) return "FUA";
  return (abilities & NBD_FLAG_SEND_TRIM) !== 0 ? "trims" : "writing zeroes";
}
