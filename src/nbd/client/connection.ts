/** One connection to a server, negotiated: requests out, replies in. */
import { NBD_CMD_DISC, NBD_CMD_READ } from "../../uapi/nbd.ts";
import type { DirectReceiver } from "./direct-receiver.ts";
import type { Link, LinkOwner } from "./link.ts";
import { Outbox } from "./outbox.ts";
import { ProtocolError, ReplyReader, type ReplyTaker } from "./reply-reader.ts";
import { ClientRequest } from "./request.ts";

/** From here on a read is worth receiving to its place, in bytes. */
const LONG_BYTES = 32 * 1024;

export interface ConnectionOwner extends ReplyTaker {
  /** There is room for requests again. */
  readonly hasRoom: () => void;
  /** The connection is of no use any more: the reason is the rest of a sentence. Called once. */
  readonly lost: (reason: string) => void;
}

export class Connection {
  /** Requests that are not answered, and how many of them are long reads. */
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

  /** From now on what comes is looked at. */
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

  /** Returns false when there is no room now: `hasRoom` follows. It goes out with the next {@link flush}. */
  put(request: ClientRequest): boolean {
    if (!this.#outbox.put(request)) return false;
    this.inFlight += 1;
    if (isLongRead(request)) {
      this.#longReads += 1;
      this.#link.receiveDirectly(true);
    }
    return true;
  }

  /** A request that it was given has its answer. */
  answered(request: ClientRequest): void {
    this.inFlight -= 1;
    if (!isLongRead(request)) return;
    this.#longReads -= 1;
    if (this.#longReads === 0) this.#link.receiveDirectly(false);
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

  /** @param bytes that came, or how many of them are in their place. */
  #received(bytes: Uint8Array | number): void {
    try {
      if (typeof bytes === "number") this.#reader.placed(bytes);
      else this.#reader.push(bytes);
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

function isLongRead({ command, length }: ClientRequest): boolean {
  return command === NBD_CMD_READ && length >= LONG_BYTES;
}
