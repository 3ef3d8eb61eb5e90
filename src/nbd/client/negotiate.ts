/** The client's side of the handshake (doc/proto.md of the NBD project): fixed newstyle and its predecessors. */
import { UserError } from "../../errors.ts";
import { DEFAULT_BLOCK_SIZE } from "../../device.ts";
import { NBD_FLAG_HAS_FLAGS } from "../../uapi/nbd.ts";
import { MAX_PAYLOAD } from "../wire/codec.ts";
import {
  NBD_FLAG_C_FIXED_NEWSTYLE,
  NBD_FLAG_C_NO_ZEROES,
  NBD_FLAG_FIXED_NEWSTYLE,
  NBD_FLAG_NO_ZEROES,
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_EXPORT,
  NBD_INIT_MAGIC,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_GO,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_OPTS_MAGIC,
  NBD_REP_ACK,
  NBD_REP_ERR_POLICY,
  NBD_REP_ERR_SHUTDOWN,
  NBD_REP_ERR_TLS_REQD,
  NBD_REP_ERR_UNKNOWN,
  NBD_REP_ERR_UNSUP,
  NBD_REP_FLAG_ERROR,
  NBD_REP_INFO,
  NBD_REP_MAGIC,
  NBD_REP_META_CONTEXT,
  nbd_option,
  nbd_option_reply,
} from "../wire/numbers.ts";
import type { ExportFacts } from "./facts.ts";
import type { Link } from "./link.ts";
import type { Remote } from "./remote.ts";

/** More than any reply to our options, in bytes. */
const REPLY_BYTES_MAX = 64 * 1024;
const TRAILING_ZEROES = 124;
const ALLOCATION = "base:allocation";
/** The limits of a server that accepts requests of any size. */
const ANY_BLOCK: Blocks = { blockBytes: 1, payloadBytes: MAX_PAYLOAD };

interface OptionReply {
  readonly type: number;
  readonly data: DataView;
}

type Blocks = Pick<ExportFacts, "blockBytes" | "payloadBytes">;
type Size = Pick<ExportFacts, "size" | "flags">;

/** @throws UserError with a whole line for a permanent failure, Error with the rest of a line for a temporary one. */
export async function negotiate(link: Link, remote: Remote): Promise<ExportFacts> {
  const greeting = viewOf(await link.take(18));
  if (greeting.getBigUint64(0) !== NBD_INIT_MAGIC)
    throw new UserError(`${remote.uri} is not an NBD server: check the address`);
  if (greeting.getBigUint64(8) !== NBD_OPTS_MAGIC)
    throw new UserError(`${remote.uri} speaks the old protocol without options: update the server`);
  return new Negotiation(link, remote, greeting.getUint16(16)).run();
}

class Negotiation {
  readonly #link: Link;
  readonly #remote: Remote;
  readonly #flags: number;

  /** @param flags the server's handshake flags. */
  constructor(link: Link, remote: Remote, flags: number) {
    this.#link = link;
    this.#remote = remote;
    this.#flags = flags;
  }

  async run(): Promise<ExportFacts> {
    const isFixed = (this.#flags & NBD_FLAG_FIXED_NEWSTYLE) !== 0;
    const noZeroes = (this.#flags & NBD_FLAG_NO_ZEROES) === 0 ? 0 : NBD_FLAG_C_NO_ZEROES;
    const flags = new DataView(new ArrayBuffer(4));
    flags.setUint32(0, (isFixed ? NBD_FLAG_C_FIXED_NEWSTYLE : 0) | noZeroes);
    this.#send(bytesOf(flags));
    if (!isFixed) return { ...ANY_BLOCK, ...(await this.#exportName()), structured: false, allocationId: -1 };
    const structured = await this.#structured();
    const allocationId = structured ? await this.#allocation() : -1;
    const found = (await this.#go()) ?? { ...ANY_BLOCK, ...(await this.#exportName()) };
    return { ...found, structured, allocationId };
  }

  async #structured(): Promise<boolean> {
    this.#option(NBD_OPT_STRUCTURED_REPLY, new Uint8Array());
    return (await this.#reply(NBD_OPT_STRUCTURED_REPLY)).type === NBD_REP_ACK;
  }

  /** The number of the metadata context; -1 for none. */
  async #allocation(): Promise<number> {
    const name = sized(this.#remote.exportName);
    this.#option(NBD_OPT_SET_META_CONTEXT, Buffer.concat([name, word(1), sized(ALLOCATION)]));
    let id = -1;
    for (;;) {
      const { type, data } = await this.#reply(NBD_OPT_SET_META_CONTEXT);
      if (type === NBD_REP_META_CONTEXT && data.byteLength >= 4) id = data.getUint32(0);
      else return type === NBD_REP_ACK ? id : -1;
    }
  }

  /** Undefined for a server that does not know the option. */
  async #go(): Promise<(Size & Blocks) | undefined> {
    const infos = Uint8Array.of(0, 1, 0, NBD_INFO_BLOCK_SIZE);
    this.#option(NBD_OPT_GO, Buffer.concat([sized(this.#remote.exportName), infos]));
    let size: Size | undefined;
    let blocks = ANY_BLOCK;
    for (;;) {
      const { type, data } = await this.#reply(NBD_OPT_GO);
      if (type === NBD_REP_ERR_UNSUP) return undefined;
      if (type >= NBD_REP_FLAG_ERROR) throw this.#refused(type, data);
      if (type === NBD_REP_ACK) break;
      if (type !== NBD_REP_INFO || data.byteLength < 2) continue;
      const info = data.getUint16(0);
      if (info === NBD_INFO_EXPORT && data.byteLength === 12) size = sizeOf(data, 2);
      if (info === NBD_INFO_BLOCK_SIZE && data.byteLength === 14) blocks = blocksOf(data);
    }
    if (size === undefined) throw new Error("the server does not say how large the export is");
    return { ...size, ...blocks };
  }

  async #exportName(): Promise<Size> {
    this.#option(NBD_OPT_EXPORT_NAME, new TextEncoder().encode(this.#remote.exportName));
    const data = await this.#link.take(10).catch(() => {
      throw new UserError(this.#noExport());
    });
    const size = sizeOf(viewOf(data), 0);
    if ((this.#flags & NBD_FLAG_NO_ZEROES) === 0) await this.#link.take(TRAILING_ZEROES);
    return size;
  }

  async #reply(option: number): Promise<OptionReply> {
    const header = viewOf(await this.#link.take(nbd_option_reply.size));
    const length = header.getUint32(nbd_option_reply.length);
    const isReply =
      header.getBigUint64(nbd_option_reply.magic) === NBD_REP_MAGIC &&
      header.getUint32(nbd_option_reply.option) === option &&
      length <= REPLY_BYTES_MAX;
    if (!isReply) throw new Error("the server does not keep to the protocol");
    const reply = {
      type: header.getUint32(nbd_option_reply.type),
      data: viewOf(await this.#link.take(length)),
    };
    if (reply.type === NBD_REP_ERR_TLS_REQD) throw this.#refused(reply.type, reply.data);
    return reply;
  }

  #refused(type: number, data: DataView): Error {
    const { uri } = this.#remote;
    if (type === NBD_REP_ERR_TLS_REQD) {
      return new UserError(
        `${uri} wants TLS, which is not supported: let the server do without, behind a tunnel such as "ssh -L" makes`,
      );
    }
    if (type === NBD_REP_ERR_UNKNOWN) return new UserError(this.#noExport());
    if (type === NBD_REP_ERR_POLICY)
      return new UserError(`${uri} is refused to this client: see the server's configuration`);
    if (type === NBD_REP_ERR_SHUTDOWN) return new Error("the server is shutting down");
    const said = new TextDecoder().decode(bytesOf(data)).replaceAll(/[^\x20-\x7e]/g, " ");
    return new Error(`the server refuses the export: ${said === "" ? `error ${type % 2 ** 31}` : said}`);
  }

  #noExport(): string {
    const { uri, exportName } = this.#remote;
    const what = exportName === "" ? "no export without a name" : `no export "${exportName}"`;
    return `${uri}: the server has ${what}: "nbdinfo --list" of the server shows those that there are`;
  }

  #option(option: number, data: Uint8Array): void {
    const header = new DataView(new ArrayBuffer(nbd_option.size));
    header.setBigUint64(nbd_option.magic, NBD_OPTS_MAGIC);
    header.setUint32(nbd_option.option, option);
    header.setUint32(nbd_option.length, data.byteLength);
    this.#send(Buffer.concat([bytesOf(header), data]));
  }

  /** Everything that the client sends fits the empty buffer of a new socket. */
  #send(bytes: Uint8Array): void {
    if (this.#link.send(bytes) !== bytes.byteLength) throw new Error("the server takes nothing");
  }
}

function sizeOf(data: DataView, at: number): Size {
  const flags = data.getUint16(at + 8);
  const size = Number(data.getBigUint64(at));
  return { size, flags: (flags & NBD_FLAG_HAS_FLAGS) === 0 ? 0 : flags };
}

function blocksOf(data: DataView): Blocks {
  const payloadBytes = Math.min(data.getUint32(10), MAX_PAYLOAD);
  // Rounded down to whole blocks.
  const whole = payloadBytes - (payloadBytes % DEFAULT_BLOCK_SIZE);
  return { blockBytes: Math.max(1, data.getUint32(2)), payloadBytes: Math.max(DEFAULT_BLOCK_SIZE, whole) };
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function bytesOf(view: DataView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

function word(value: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, value);
  return bytesOf(view);
}

/** A length and as many bytes of UTF-8. */
function sized(text: string): Uint8Array {
  const bytes = new TextEncoder().encode(text);
  return Buffer.concat([word(bytes.byteLength), bytes]);
}
