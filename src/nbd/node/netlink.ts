/**
 * The NBD driver's netlink family: what attaches, takes over and detaches /dev/nbdN without a thread that stays in the
 * kernel (drivers/block/nbd.c, nbd_genl_*). The node belongs to no process: it stays when its server ends.
 */
import { AttributeWriter, findAttribute } from "../../libc/netlink-attributes.ts";
import { GenericNetlink } from "../../libc/generic-netlink.ts";
import {
  NBD_ATTR_BACKEND_IDENTIFIER,
  NBD_ATTR_BLOCK_SIZE_BYTES,
  NBD_ATTR_DEAD_CONN_TIMEOUT,
  NBD_ATTR_INDEX,
  NBD_ATTR_SERVER_FLAGS,
  NBD_ATTR_SIZE_BYTES,
  NBD_ATTR_SOCKETS,
  NBD_ATTR_TIMEOUT,
  NBD_CMD_CONNECT,
  NBD_CMD_DISCONNECT,
  NBD_CMD_RECONFIGURE,
  NBD_GENL_VERSION,
  NBD_SOCK_FD,
  NBD_SOCK_ITEM,
} from "../../uapi/nbd-netlink.ts";

/** What CONNECT says about a device. */
export interface NodeShape {
  /** Undefined: any free node, or a new one. */
  readonly index: number | undefined;
  /** Bytes. */
  readonly size: number;
  readonly blockSize: number;
  /** NBD_FLAG_*. */
  readonly flags: number;
  /** Seconds after which the driver gives up on a request; 0 for never. */
  readonly timeout: number;
  /** Seconds for which new requests wait for another server; 0: they fail at once. */
  readonly deadTimeout: number;
  /** The owner of the node: the driver lets only the same identifier take it over. Since Linux 5.14. */
  readonly backend: string;
}

export class NbdFamily implements Disposable {
  readonly #netlink: GenericNetlink;

  /** @throws ErrnoError if the driver is not loaded, or lacks the family. */
  constructor() {
    this.#netlink = new GenericNetlink("nbd");
  }

  /**
   * Attaches a node. It does no I/O on it: the thread that serves the sockets may call it.
   * @param sockets the kernel's ends, open in this process; close them afterwards.
   * @returns the node's index.
   * @throws ErrnoError EBUSY if it is in use, EINVAL if there is no such node.
   */
  connect(shape: NodeShape, sockets: readonly number[]): number {
    const attributes = new AttributeWriter();
    if (shape.index !== undefined) attributes.u32(NBD_ATTR_INDEX, shape.index);
    attributes
      .u64(NBD_ATTR_SIZE_BYTES, shape.size)
      .u64(NBD_ATTR_BLOCK_SIZE_BYTES, shape.blockSize)
      .u64(NBD_ATTR_SERVER_FLAGS, shape.flags)
      .u64(NBD_ATTR_TIMEOUT, shape.timeout)
      .u64(NBD_ATTR_DEAD_CONN_TIMEOUT, shape.deadTimeout)
      .text(NBD_ATTR_BACKEND_IDENTIFIER, shape.backend)
      .nested(NBD_ATTR_SOCKETS, socketList(sockets));
    const [answer] = this.#request(NBD_CMD_CONNECT, attributes, "NBD_CMD_CONNECT");
    const index = findAttribute(answer?.attributes ?? [], NBD_ATTR_INDEX)?.u32;
    if (index === undefined) throw new Error("NBD_CMD_CONNECT was answered without an index");
    return index;
  }

  /** Gives new sockets to a node whose server is gone. @throws ErrnoError */
  reconfigure(index: number, backend: string, sockets: readonly number[]): void {
    const attributes = new AttributeWriter()
      .u32(NBD_ATTR_INDEX, index)
      .text(NBD_ATTR_BACKEND_IDENTIFIER, backend)
      .nested(NBD_ATTR_SOCKETS, socketList(sockets));
    this.#request(NBD_CMD_RECONFIGURE, attributes, "NBD_CMD_RECONFIGURE");
  }

  /** Changes the size, in bytes. Never call it on a thread that serves the node. @throws ErrnoError */
  resize(index: number, backend: string, size: number): void {
    const attributes = new AttributeWriter()
      .u32(NBD_ATTR_INDEX, index)
      .u64(NBD_ATTR_SIZE_BYTES, size)
      .text(NBD_ATTR_BACKEND_IDENTIFIER, backend);
    this.#request(NBD_CMD_RECONFIGURE, attributes, "NBD_CMD_RECONFIGURE");
  }

  /** Detaches a node, whoever attached it. Never call it on a thread that serves it. @throws ErrnoError */
  disconnect(index: number): void {
    const attributes = new AttributeWriter().u32(NBD_ATTR_INDEX, index);
    this.#request(NBD_CMD_DISCONNECT, attributes, "NBD_CMD_DISCONNECT");
  }

  close(): void {
    this.#netlink.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #request(command: number, attributes: AttributeWriter, what: string) {
    return this.#netlink.request(command, NBD_GENL_VERSION, attributes, what);
  }
}

function socketList(sockets: readonly number[]): AttributeWriter {
  const list = new AttributeWriter();
  for (const fd of sockets) list.nested(NBD_SOCK_ITEM, new AttributeWriter().u32(NBD_SOCK_FD, fd));
  return list;
}
