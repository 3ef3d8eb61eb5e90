/**
 * A family of the kernel's generic netlink: commands with attributes, each answered before the next (netlink(7) and
 * Documentation/userspace-api/netlink/intro.rst). The kernel carries a command out within the call that sends it.
 */
import { ErrnoError } from "../errors.ts";
import { errno } from "../uapi/errno.ts";
import {
  CTRL_ATTR_FAMILY_ID,
  CTRL_ATTR_FAMILY_NAME,
  CTRL_CMD_GETFAMILY,
  GENL_ID_CTRL,
  genlmsghdr,
} from "../uapi/genetlink.ts";
import {
  AF_NETLINK,
  NETLINK_GENERIC,
  NLM_F_ACK,
  NLM_F_REQUEST,
  NLMSG_ERROR,
  nlmsghdr,
} from "../uapi/netlink.ts";
import { SOCK_CLOEXEC, SOCK_RAW } from "../uapi/socket.ts";
import { negativeErrno, unwrap } from "./errno.ts";
import { close } from "./file.ts";
import { libc } from "./library.ts";
import { type Attribute, AttributeWriter, findAttribute, readAttributes } from "./netlink-attributes.ts";
import { setReceiveTimeout } from "./socket.ts";

const HEADERS_SIZE = nlmsghdr.size + genlmsghdr.size;
const RECEIVE_BYTES = 64 * 1024;
/** A time limit in milliseconds: the answer is normally there when the call that sends the command returns. */
const ANSWER_MS = 5000;

/** A message from the kernel. */
export interface NetlinkMessage {
  readonly command: number;
  readonly attributes: readonly Attribute[];
}

export class GenericNetlink implements Disposable {
  readonly #fd: number;
  readonly #id: number;
  readonly #buffer = new Uint8Array(RECEIVE_BYTES);
  #sequence = 0;

  /**
   * @param family its name, such as "nbd"; its module must be loaded.
   * @throws ErrnoError ENOENT if the kernel has no such family, or the errno of socket(2) if netlink is refused.
   */
  constructor(family: string) {
    this.#fd = unwrap(
      negativeErrno(libc.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC)),
      "socket(AF_NETLINK)",
    );
    try {
      unwrap(setReceiveTimeout(this.#fd, ANSWER_MS), "setsockopt(SO_RCVTIMEO)");
      const name = new AttributeWriter().text(CTRL_ATTR_FAMILY_NAME, family);
      const [answer] = this.#ask(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 1, name, `the netlink family "${family}"`);
      this.#id = findAttribute(answer?.attributes ?? [], CTRL_ATTR_FAMILY_ID)?.u16 ?? 0;
    } catch (error) {
      close(this.#fd);
      throw error;
    }
  }

  /**
   * Sends a command and returns the answers, without the acknowledgement.
   * @param what was tried, for the message of the error.
   * @throws ErrnoError with the errno of the kernel's answer.
   */
  request(command: number, version: number, attributes: AttributeWriter, what: string): NetlinkMessage[] {
    return this.#ask(this.#id, command, version, attributes, what);
  }

  close(): void {
    close(this.#fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #ask(
    id: number,
    command: number,
    version: number,
    attributes: AttributeWriter,
    what: string,
  ): NetlinkMessage[] {
    this.#sequence += 1;
    const message = encode(id, command, version, this.#sequence, attributes.bytes);
    unwrap(negativeErrno(libc.sendto(this.#fd, message, message.length, 0, null, 0)), what);
    const answers: NetlinkMessage[] = [];
    for (;;) {
      const received = unwrap(negativeErrno(libc.recv(this.#fd, this.#buffer, RECEIVE_BYTES, 0)), what);
      for (const answer of messagesIn(this.#buffer.slice(0, received))) {
        if (answer.sequence !== this.#sequence) continue;
        if (answer.type !== NLMSG_ERROR) answers.push(answer);
        else if (answer.error === 0) return answers;
        else unwrap(answer.error, what);
      }
      if (received === 0) throw new ErrnoError(errno.EIO, `${what}: netlink ended without an answer`);
    }
  }
}

interface ReceivedMessage extends NetlinkMessage {
  readonly type: number;
  readonly sequence: number;
  /** The result in an acknowledgement: 0 or -errno. */
  readonly error: number;
}

function encode(
  id: number,
  command: number,
  version: number,
  sequence: number,
  body: Uint8Array,
): Uint8Array {
  const message = new Uint8Array(HEADERS_SIZE + body.length);
  const view = new DataView(message.buffer);
  view.setUint32(nlmsghdr.nlmsg_len, message.length, true);
  view.setUint16(nlmsghdr.nlmsg_type, id, true);
  view.setUint16(nlmsghdr.nlmsg_flags, NLM_F_REQUEST | NLM_F_ACK, true);
  view.setUint32(nlmsghdr.nlmsg_seq, sequence, true);
  view.setUint8(nlmsghdr.size + genlmsghdr.cmd, command);
  view.setUint8(nlmsghdr.size + genlmsghdr.version, version);
  message.set(body, HEADERS_SIZE);
  return message;
}

/** @param bytes one or more messages. They remain the caller's; the attributes are views of them. */
function messagesIn(bytes: Uint8Array): ReceivedMessage[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const messages: ReceivedMessage[] = [];
  for (let at = 0; at + HEADERS_SIZE <= bytes.length;) {
    const length = view.getUint32(at + nlmsghdr.nlmsg_len, true);
    if (length < HEADERS_SIZE || at + length > bytes.length) break;
    const type = view.getUint16(at + nlmsghdr.nlmsg_type, true);
    messages.push({
      type,
      sequence: view.getUint32(at + nlmsghdr.nlmsg_seq, true),
      error: type === NLMSG_ERROR ? view.getInt32(at + nlmsghdr.size, true) : 0,
      command: view.getUint8(at + nlmsghdr.size + genlmsghdr.cmd),
      attributes: type === NLMSG_ERROR ? [] : readAttributes(bytes.subarray(at + HEADERS_SIZE, at + length)),
    });
    at += Math.ceil(length / 4) * 4;
  }
  return messages;
}
