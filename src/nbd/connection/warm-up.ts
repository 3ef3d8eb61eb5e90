/**
 * Makes the engine compile the request loop before anybody waits for it: the first thousand requests of a fresh process
 * cost ten times as much as later ones. A separate connection serves requests to a few pages of memory.
 */
import { Dispatch } from "../../dispatch.ts";
import { close } from "../../libc/file.ts";
import { Memory } from "../../libc/memory.ts";
import { receiveBytes, sendBytes, streamSocketPair } from "../../libc/socket.ts";
import { NBD_CMD_READ, NBD_CMD_WRITE, NBD_REQUEST_MAGIC, nbd_request } from "../../uapi/nbd.ts";
import { Connection } from "./connection.ts";
import { Service } from "./service.ts";

/** Bytes of the memory, and of each request. */
const SIZE = 16 * 4096;
const LENGTH = 4096;
/** Requests sent at once, and the number of rounds. */
const BATCH = 16;
const ROUNDS = 512;
/** Rounds in one step: a millisecond or two at first. */
const STEP_ROUNDS = 8;

export class WarmUp {
  #rounds = 0;
  readonly #memory = new Memory(SIZE);
  readonly #requests = requestBatch();
  readonly #replies = new Uint8Array(new ArrayBuffer(2 * BATCH * LENGTH));
  readonly #sockets = streamSocketPair();
  readonly #connection: Connection;

  constructor() {
    const { address } = this.#memory;
    const device = { size: SIZE, memory: { address }, read: nothing, write: nothing };
    this.#connection = new Connection(this.#sockets[0], new Service(new Dispatch(device), {}, LENGTH));
  }

  /** Serves some requests. Returns false once it is done. */
  step(): boolean {
    for (let round = 0; round < STEP_ROUNDS; round += 1) {
      sendBytes(this.#sockets[1], this.#requests);
      this.#connection.run();
      receiveBytes(this.#sockets[1], this.#replies);
    }
    this.#rounds += STEP_ROUNDS;
    return this.#rounds < ROUNDS;
  }

  close(): void {
    this.#connection.close();
    for (const fd of this.#sockets) close(fd);
    this.#memory.close();
  }
}

function nothing(): void {
  // A transport moves the bytes of a memory device itself.
}

/** Reads and writes in turn. */
function requestBatch(): Uint8Array {
  const pair = 2 * nbd_request.size + LENGTH;
  const bytes = new Uint8Array(new ArrayBuffer((BATCH / 2) * pair));
  const view = new DataView(bytes.buffer);
  for (let index = 0; index < BATCH; index += 1) {
    const isRead = index % 2 === 0;
    const at = Math.floor(index / 2) * pair + (isRead ? 0 : nbd_request.size);
    view.setUint32(at + nbd_request.magic, NBD_REQUEST_MAGIC);
    view.setUint32(at + nbd_request.type, isRead ? NBD_CMD_READ : NBD_CMD_WRITE);
    view.setUint32(at + nbd_request.from + 4, (index * LENGTH) % SIZE);
    view.setUint32(at + nbd_request.len, LENGTH);
  }
  return bytes;
}
