/** One connection to a server, negotiated: requests out, replies in. */
import { NBD_CMD_DISC } from "../../uapi/nbd.ts";
import type { Link } from "./link.ts";
import { Outbox } from "./outbox.ts";
import { ProtocolError, ReplyReader, type ReplyTaker } from "./reply-reader.ts";
import { ClientRequest } from "./request.ts";

export interface ConnectionOwner extends ReplyTaker {
  /** There is room for requests again. */
  readonly hasRoom: () => void;
  /** The connection is of no use any more: the reason is the rest of a sentence. Called once. */
  readonly lost: (reason: string) => void;
}

export class Connection {
  /** Requests that are not answered. */
  inFlight = 0;
  readonly #link: Link;
  readonly #outbox: Outbox;
  readonly #owner: ConnectionOwner;
  readonly #reader: ReplyReader;
  #isOpen = true;

  constructor(link: Link, owner: ConnectionOwner) {
    this.#link = link;
    this.#owner = owner;
    this.#outbox = new Outbox(link);
    this.#reader = new ReplyReader(owner);
  }

  /** From now on what comes is looked at. */
  start(): void {
    this.#link.takeOver({
      received: (bytes) => this.#received(bytes),
      drained: () => {
        if (this.#outbox.flush()) this.#owner.hasRoom();
      },
      ended: (reason) => this.#lose(reason),
    });
  }

  /** Returns false when there is no room now: `hasRoom` follows. It goes out with the next {@link flush}. */
  put(request: ClientRequest): boolean {
    if (!this.#outbox.put(request)) return false;
    this.inFlight += 1;
    return true;
  }

  flush(): void {
    this.#outbox.flush();
  }

  /** Takes leave of the server. */
  leave(): void {
    const farewell = new ClientRequest(0);
    farewell.command = NBD_CMD_DISC;
    if (this.#outbox.put(farewell)) this.#outbox.flush();
    this.drop();
  }

  /** Closes the socket; the owner is not told. */
  drop(): void {
    this.#isOpen = false;
    this.#link.close();
  }

  #received(bytes: Uint8Array): void {
    try {
      this.#reader.push(bytes);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      // Of what came after the owner had enough of it nothing is known any more.
      this.#lose(`the server does not keep to the protocol: ${error.message}`);
    }
  }

  #lose(reason: string): void {
    if (!this.#isOpen) return;
    this.drop();
    this.#owner.lost(reason);
  }
}
