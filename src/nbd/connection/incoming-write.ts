/** The write whose payload a tight connection receives: what its header said, kept until all of that is there. */
import {
  requestCookieHigh,
  requestCookieLow,
  requestFlags,
  requestLength,
  requestOffset,
} from "../wire/codec.ts";

export class IncomingWrite {
  isPending = false;
  /** An errno when it does not go to the device, else 0. */
  status = 0;
  /** Where the payload is in the staging area; -1 where it goes straight to its place. */
  position = 0;
  offset = 0;
  length = 0;
  flags = 0;
  cookieHigh = 0;
  cookieLow = 0;

  /** Takes over the header at `at`. */
  begin(view: DataView, at: number, status: number, position: number): void {
    this.isPending = true;
    this.status = status;
    this.position = position;
    this.offset = requestOffset(view, at);
    this.length = requestLength(view, at);
    this.flags = requestFlags(view, at);
    this.cookieHigh = requestCookieHigh(view, at);
    this.cookieLow = requestCookieLow(view, at);
  }
}
