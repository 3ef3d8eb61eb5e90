/** One connection to a server, negotiated: requests out, replies in. */
import { NBD_CMD_DISC, NBD_CMD_READ } from "../../uapi/nbd.ts";
import type { DirectReceiver } from "./direct-receiver.ts";
import type { Link, LinkOwner } from "./link.ts";
import { Outbox } from "./outbox.ts";
import { ProtocolError, ReplyReader, type ReplyTaker } from "./reply-reader.ts";
import { ClientRequest } from "./request.ts";

/** From this length on, in bytes, receiving a read directly to its place pays. */
const LONG_BYTES = 32 * 1024;

export interface ConnectionOwner extends ReplyTaker {
  /** There is room for requests again. */
  readonly hasRoom: () => void;
  /** The connection has become useless: the reason is the rest of a sentence. Called once. */
  readonly lost: (reason: string) => void;
}

export class Connection {
  /** Unanswered requests, and how many of them are long reads. */
  inFlight = 0;
  #longReads = 0;
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

  /** Starts handling what the server sends. */
  start(receiver: DirectReceiver | undefined): void {
    const owner = {
      received: (bytes) => this.#received(bytes),
      place: () => this.#reader.place(),
      placed: (count) => this.#received(count),
      drained: () => {
        if (this.#outbox.flush()) this.#owner.hasRoom();
      },
      ended: (reason) => this.#lose(reason),
    } satisfies LinkOwner;
    this.#link.takeOver(owner, receiver);
  }

  /** Queues a request for the next {@link flush}. Returns false if there is no room: `hasRoom` follows. */
  put(request: ClientRequest): boolean {
    if (!this.#outbox.put(request)) return false;
    this.inFlight += 1;
    if (isLongRead(request)) {
      this.#longReads += 1;
      this.#link.receiveDirectly(true);
    }
    return true;
  }

  /** Notes that one of its requests has been answered. */
  answered(request: ClientRequest): void {
    this.inFlight -= 1;
    if (!isLongRead(request)) return;
    this.#longReads -= 1;
    if (this.#longReads === 0) this.#link.receiveDirectly(false);
  }

  flush(): void {
    this.#outbox.flush();
  }

  /** Tells the server that the client leaves. */
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

  /** @param bytes that arrived, or how many of them are already in their place. */
  #received(bytes: Uint8Array | number): void {
    try {
      if (typeof bytes === "number") this.#reader.placed(bytes);
      else this.#reader.push(bytes);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      // If the owner has dropped the connection, nobody knows what the rest means.
      this.#lose(`the server does not keep to the protocol: ${error.message}`);
    }
  }

  #lose(reason: string): void {
    if (!this.#isOpen) return;
    this.drop();
    this.#owner.lost(reason);
  }
}

function isLongRead({ command, length }: ClientRequest): boolean {
  return command === NBD_CMD_READ && length >= LONG_BYTES;
}
