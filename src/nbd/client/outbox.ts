/**
 * Requests on their way into a socket. Small payloads are copied next to their headers, so that many requests go out
 * with one system call; large ones are sent from where they are.
 */
import { NBD_CMD_WRITE, NBD_REQUEST_MAGIC, nbd_request } from "../../uapi/nbd.ts";
import type { Link } from "./link.ts";
import type { ClientRequest } from "./request.ts";

const STAGING_BYTES = 256 * 1024;
/** Up to this length, in bytes, copying a payload is cheaper than a system call of its own. */
const SMALL_BYTES = 32 * 1024;
const WORD = 2 ** 32;

export class Outbox {
  readonly #link: Link;
  readonly #staging = new Uint8Array(new ArrayBuffer(STAGING_BYTES));
  readonly #view = new DataView(this.#staging.buffer);
  /** The end of the staging area, and the start of its part that is not among the pieces yet. */
  #fill = 0;
  #start = 0;
  /** In the order of sending, and how much of the first one has been sent. */
  readonly #pieces: Uint8Array[] = [];
  #sent = 0;

  constructor(link: Link) {
    this.#link = link;
  }

  /** Returns false if there is no room now. The payload is lent until the request is answered. */
  put(request: ClientRequest): boolean {
    const payload = request.command === NBD_CMD_WRITE ? request.buffer : undefined;
    const isSmall = payload !== undefined && payload.byteLength <= SMALL_BYTES;
    const needed = nbd_request.size + (isSmall ? payload.byteLength : 0);
    if (this.#fill + needed > STAGING_BYTES && !this.flush()) return false;
    this.#putHeader(request);
    if (payload === undefined) return true;
    if (isSmall) {
      this.#staging.set(payload, this.#fill);
      this.#fill += payload.byteLength;
      return true;
    }
    this.#closePiece();
    this.#pieces.push(payload);
    return true;
  }

  /** Sends as much as the socket accepts. Returns true if nothing is left. */
  flush(): boolean {
    this.#closePiece();
    let first = this.#pieces[0];
    while (first !== undefined) {
      this.#sent += this.#link.send(this.#sent === 0 ? first : first.subarray(this.#sent));
      if (this.#sent < first.byteLength) return false;
      this.#sent = 0;
      this.#pieces.shift();
      first = this.#pieces[0];
    }
    this.#fill = 0;
    this.#start = 0;
    return true;
  }

  #putHeader(request: ClientRequest): void {
    const [view, at] = [this.#view, this.#fill];
    view.setUint32(at + nbd_request.magic, NBD_REQUEST_MAGIC);
    view.setUint32(at + nbd_request.type, (request.flags | request.command) >>> 0);
    view.setUint32(at + nbd_request.cookie, request.serial);
    view.setUint32(at + nbd_request.cookie + 4, request.cookie);
    view.setUint32(at + nbd_request.from, request.offset / WORD);
    view.setUint32(at + nbd_request.from + 4, request.offset % WORD);
    view.setUint32(at + nbd_request.len, request.length);
    this.#fill = at + nbd_request.size;
  }

  #closePiece(): void {
    if (this.#fill === this.#start) return;
    this.#pieces.push(this.#staging.subarray(this.#start, this.#fill));
    this.#start = this.#fill;
  }
}
