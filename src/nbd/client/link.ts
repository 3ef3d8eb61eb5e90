/**
 * A socket to a server: bytes in both directions, and its end. Until its owner takes it over, it keeps what arrives for
 * the negotiation.
 */
import type { Socket } from "bun";
import { messageOf } from "../../errors.ts";
import { errorText } from "../../libc/errno.ts";
import { setUserTimeout } from "../../libc/listen.ts";
import { receiveBytes } from "../../libc/socket.ts";
import { errno } from "../../uapi/errno.ts";
import type { ServerTarget } from "../server/target.ts";
import type { DirectReceiver } from "./direct-receiver.ts";

/** The owner of the socket, once it has taken over. None of these throws. */
export interface LinkOwner {
  /** The bytes are lent until it returns. */
  readonly received: (bytes: Uint8Array) => void;
  /** Where to receive the next bytes; undefined: anywhere. */
  readonly place: () => Uint8Array | undefined;
  /** `count` bytes have arrived there. */
  readonly placed: (count: number) => void;
  /** There is room again, after {@link Link.send} has not taken all. */
  readonly drained: () => void;
  /** Called once, as the last one. */
  readonly ended: (reason: string) => void;
}

/** After this silence, in milliseconds, TCP probes whether a connection is dead. */
const KEEP_ALIVE_MS = 10_000;
/** How long sent data may stay unacknowledged, in milliseconds; by default TCP tries for 15 minutes. */
const ACKNOWLEDGE_MS = 30_000;
/** What a server may send before it is read, in bytes: more than any answer of a negotiation. */
const EARLY_BYTES_MAX = 2 ** 20;
const CLOSED = "the server closed the connection";
const REASONS: ReadonlyMap<string, string> = new Map([
  ["ENOENT", "there is no such socket"],
  ["ENOTSOCK", "it is not a socket"],
  ["ECONNREFUSED", "no server listens there"],
  ["ECONNRESET", CLOSED],
  ["EPIPE", CLOSED],
  ["ENOTFOUND", "no such host is known"],
  ["EACCES", "permission denied"],
  ["EPERM", "permission denied"],
  ["EHOSTUNREACH", "no route to the host"],
  ["ENETUNREACH", "the network is unreachable"],
  ["ETIMEDOUT", "the server does not answer"],
]);
const NOTHING = new Uint8Array();
/** For what arrives between long data. It is short, so that little of the next data must be copied. */
const inbox = new Uint8Array(new ArrayBuffer(16 * 1024));
/** Receives in one turn; then others have theirs. */
const RECEIVES_MAX = 64;

export class Link {
  #socket: Socket | undefined;
  #fd = -1;
  #owner: LinkOwner | undefined;
  #early: Uint8Array = NOTHING;
  #news: (() => void) | undefined;
  #end: string | undefined;
  #receiver: DirectReceiver | undefined;
  #isDirect = false;
  /** The receiver's key while it watches, else -1. */
  #key = -1;
  readonly #isTcp: boolean;

  private constructor(isTcp: boolean) {
    this.#isTcp = isTcp;
  }

  /** @throws Error with the reason, as the rest of a sentence. */
  static async connect(address: ServerTarget, limitMs: number): Promise<Link> {
    const link = new Link(address.kind === "tcp");
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(() => {
      link.close("the server does not answer");
      late.resolve();
    }, limitMs);
    await Promise.race([link.#connect(address), late.promise]);
    clearTimeout(timer);
    if (link.#end !== undefined) throw new Error(link.#end);
    return link;
  }

  /** The next bytes of a negotiation. @throws Error when the connection ends before. */
  async take(count: number): Promise<Uint8Array> {
    while (this.#early.length < count) {
      if (this.#end !== undefined) throw new Error(this.#end);
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#news = resolve;
      await promise;
    }
    const taken = this.#early.subarray(0, count);
    this.#early = this.#early.subarray(count);
    return taken;
  }

  /**
   * From now on the owner gets everything that arrives, beginning with what was not taken.
   * @param receiver absent: nothing is received directly to its place.
   */
  takeOver(owner: LinkOwner, receiver?: DirectReceiver): void {
    this.#owner = owner;
    this.#receiver = receiver;
    const rest = this.#early;
    this.#early = NOTHING;
    if (rest.length > 0) owner.received(rest);
    if (this.#end !== undefined) owner.ended(this.#end);
  }

  /** Returns how many of the bytes it has accepted. If not all, `drained` says when to continue. */
  send(bytes: Uint8Array): number {
    return Math.max(0, this.#socket?.write(bytes) ?? 0);
  }

  /** Whether to receive directly to where the owner wants the data: pays while long data is to come. */
  receiveDirectly(isDirect: boolean): void {
    if (this.#receiver === undefined || this.#fd < 0 || this.#end !== undefined) return;
    if (isDirect === this.#isDirect) return;
    this.#isDirect = isDirect;
    if (!isDirect) return void this.#socket?.resume();
    this.#socket?.pause();
    this.#watch();
  }

  /** @param reason for the owner and for the negotiation; absent: they are not told. */
  close(reason?: string): void {
    if (reason === undefined) this.#owner = undefined;
    this.#ending(reason ?? CLOSED);
    this.#socket?.end();
  }

  async #connect(address: ServerTarget): Promise<void> {
    const socket = {
      open: (opened: Socket) => this.#opened(opened),
      data: (_: Socket, bytes: Uint8Array) => this.#received(bytes),
      drain: () => this.#owner?.drained(),
      close: (_: Socket, error?: Error) => this.#ending(error === undefined ? CLOSED : whyNot(error)),
      error: (_: Socket, error: Error) => this.#ending(whyNot(error)),
    };
    try {
      if (address.kind === "unix") await Bun.connect({ unix: address.path, socket });
      else await Bun.connect({ hostname: address.host, port: address.port, socket });
    } catch (error) {
      this.#ending(whyNot(error));
    }
  }

  #opened(socket: Socket): void {
    this.#socket = socket;
    // Missing from the runtime's declarations.
    if ("fd" in socket && typeof socket.fd === "number") this.#fd = socket.fd;
    // Nobody waits for it any longer.
    if (this.#end !== undefined) return void socket.end();
    if (!this.#isTcp) return;
    socket.setNoDelay(true);
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    // If the kernel refuses, it only takes longer.
    setUserTimeout(this.#fd, ACKNOWLEDGE_MS);
  }

  #received(bytes: Uint8Array): void {
    if (this.#end !== undefined) return;
    if (this.#owner !== undefined) return this.#owner.received(bytes);
    this.#early = this.#early.length === 0 ? bytes : Buffer.concat([this.#early, bytes]);
    if (this.#early.length > EARLY_BYTES_MAX) this.close("the server sends what it was not asked for");
    this.#news?.();
  }

  #watch(): void {
    if (this.#key < 0) this.#key = this.#receiver?.watch(this.#fd, this.#receive) ?? -1;
  }

  readonly #receive = (): void => {
    this.#key = -1;
    for (let count = 0; count < RECEIVES_MAX; count += 1) {
      const owner = this.#owner;
      if (!this.#isDirect || owner === undefined || this.#end !== undefined) return;
      const place = owner.place();
      const received = receiveBytes(this.#fd, place ?? inbox);
      if (received === -errno.EAGAIN || received === -errno.EINTR) break;
      if (received <= 0) return this.#ending(received === 0 ? CLOSED : errorText(-received));
      if (place === undefined) owner.received(inbox.subarray(0, received));
      else owner.placed(received);
    }
    if (this.#isDirect && this.#end === undefined) this.#watch();
  };

  #ending(reason: string): void {
    if (this.#end !== undefined) return;
    this.#end = reason;
    if (this.#key >= 0) this.#receiver?.forget(this.#key);
    this.#news?.();
    this.#owner?.ended(reason);
  }
}

/** The cause: the runtime's message says only that it failed. */
function whyNot(error: unknown): string {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  return REASONS.get(code) ?? (code === "" ? messageOf(error) : code);
}
