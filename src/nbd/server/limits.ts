/** The options of a server, and its limits on clients. */
import type { RequestOptions } from "../connection/service.ts";
import type { WaitOptions } from "../wait/waiting.ts";
import type { ExportOptions } from "./export.ts";

export interface ServerOptions extends ExportOptions, RequestOptions, WaitOptions {
  /** Clients at once. Default 128. */
  readonly maxConnections?: number | undefined;
  /** Have the request loop compiled before the first client comes. Default false. */
  readonly warmUp?: boolean | undefined;
  /** Milliseconds for a client's handshake. Default 10,000. */
  readonly handshakeMs?: number | undefined;
  /** Milliseconds after which a client that stopped in the middle, or is too slow, is cut off. Default 30,000. */
  readonly stallMs?: number | undefined;
  /** Milliseconds after which a client that asks for nothing gives way to a new one, if there is no other place. */
  readonly idleMs?: number | undefined;
}

export interface ClientLimits {
  /** For the whole handshake, in milliseconds. */
  readonly handshakeMs: number;
  /** For a request whose rest does not arrive, or replies that are not read: see stall.ts; in milliseconds. */
  readonly stallMs: number;
  /** For an idle client while others have no place; in milliseconds. */
  readonly idleMs: number;
}

export const MAX_CONNECTIONS = 128;
const HANDSHAKE_MS = 10_000;
const STALL_MS = 30_000;
const IDLE_MS = 300_000;
/** How often to check within the shortest of these times. */
export const LOOKS = 4;
/** Payloads in memory for all clients together, in bytes: eight of the longest requests. */
export const PAYLOAD_BYTES = 256 * 2 ** 20;
/** How long a dead TCP connection goes unnoticed, in milliseconds. */
export const KEEP_ALIVE_MS = 60_000;
/** Unsent bytes of the handshake's replies, at most: whoever asks must also listen. */
export const HANDSHAKE_PENDING_MAX = 256 * 1024;

export function limitsOf(options: ServerOptions): ClientLimits {
  return {
    handshakeMs: options.handshakeMs ?? HANDSHAKE_MS,
    stallMs: options.stallMs ?? STALL_MS,
    idleMs: options.idleMs ?? IDLE_MS,
  };
}
