/** What the two servers have in common: their options, and the export that follows from them. */
import type { Dispatch } from "../../dispatch.ts";
import { UserError } from "../../errors.ts";
import type { Statistics } from "../../transport.ts";
import type { EventOptions } from "../event/event-types.ts";
import { type ExportInfo, exportInfo, type ExportOptions } from "./export.ts";
import { NBD_MAX_STRING_SIZE } from "../wire/numbers.ts";
import type { ServerTarget } from "./target.ts";

export interface ServerOptions extends ExportOptions, EventOptions {
  /** Clients at once. Default 128. */
  readonly maxConnections?: number | undefined;
  /** Have the request loop compiled before the first client comes. Default false. */
  readonly warmUp?: boolean | undefined;
  /** Milliseconds for a client's handshake. Default 10,000. */
  readonly handshakeMs?: number | undefined;
  /** Milliseconds after which a client that stopped in the middle is cut off. Default 30,000. */
  readonly stallMs?: number | undefined;
}

export interface ClientLimits {
  /** For the whole handshake, in milliseconds. */
  readonly handshakeMs: number;
  /** For a client that has begun a request and sends no more of it, or that takes no replies; in milliseconds. */
  readonly stallMs: number;
}

export const MAX_CONNECTIONS = 128;
const HANDSHAKE_MS = 10_000;
const STALL_MS = 30_000;
/** How many times within the time for a stall it is looked for. */
export const STALL_LOOKS = 4;
/** Payloads in memory for all clients together, in bytes: eight of the longest requests. */
export const PAYLOAD_BYTES = 256 * 2 ** 20;
/** How long a dead TCP connection goes unnoticed, in milliseconds. */
export const KEEP_ALIVE_MS = 60_000;
/** Unsent bytes of the handshake's replies, at most: whoever asks must also listen. */
export const HANDSHAKE_PENDING_MAX = 256 * 1024;
/** How long requests in flight and replies on their way hold up the end of a connection, in milliseconds. */
export const DRAIN_MS = 10_000;

export function limitsOf(options: ServerOptions): ClientLimits {
  return { handshakeMs: options.handshakeMs ?? HANDSHAKE_MS, stallMs: options.stallMs ?? STALL_MS };
}

/** @throws UserError when a name or description is too long. */
export function servedExport(target: ServerTarget, dispatch: Dispatch, options: ServerOptions): ExportInfo {
  const exportName = options.exportName ?? target.exportName ?? "";
  checkLength("export name", exportName);
  checkLength("description", options.description ?? "");
  return exportInfo(dispatch, { exportName, description: options.description });
}

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };

export function addTo(sum: Mutable<Statistics>, more: Statistics): void {
  sum.requests += more.requests;
  sum.errors += more.errors;
  sum.bytesRead += more.bytesRead;
  sum.bytesWritten += more.bytesWritten;
}

function checkLength(what: string, text: string): void {
  if (Buffer.byteLength(text) > NBD_MAX_STRING_SIZE) {
    throw new UserError(`the ${what} is too long: give at most ${NBD_MAX_STRING_SIZE} bytes`);
  }
}
