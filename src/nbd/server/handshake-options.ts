/** The answers to the options of the handshake, one function each. They are pure: an option's data in, replies out. */
import { ALLOCATION_CONTEXT_ID } from "../wire/chunks.ts";
import type { ExportInfo } from "./export.ts";
import { OptionData } from "./option-data.ts";
import {
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_DESCRIPTION,
  NBD_INFO_EXPORT,
  NBD_INFO_NAME,
  NBD_OPT_ABORT,
  NBD_OPT_GO,
  NBD_OPT_INFO,
  NBD_OPT_LIST,
  NBD_OPT_LIST_META_CONTEXT,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STRUCTURED_REPLY,
  nbd_option_reply,
  NBD_REP_ACK,
  NBD_REP_ERR_INVALID,
  NBD_REP_ERR_UNKNOWN,
  NBD_REP_ERR_UNSUP,
  NBD_REP_INFO,
  NBD_REP_MAGIC,
  NBD_REP_META_CONTEXT,
  NBD_REP_SERVER,
} from "../wire/numbers.ts";
import { MAX_PAYLOAD } from "../wire/codec.ts";

/** What was negotiated so far. */
export interface Negotiated {
  readonly structured: boolean;
  /** The export name that `base:allocation` was chosen for. */
  readonly context: string | undefined;
}

export interface Answer {
  readonly replies: readonly Uint8Array[];
  readonly negotiated: Negotiated;
  readonly next: "option" | "transmission" | "abort";
  /** The export's name, before `transmission`. */
  readonly name: string;
}

const ALLOCATION = "base:allocation";
/** The namespace of {@link ALLOCATION}: as a query it asks for everything in it. */
const BASE = "base:";
/** The best request size for most clients, in bytes: a page, as other servers say. */
const PREFERRED_BLOCK_BYTES = 4096;
/** Zeroes at the end of the reply to NBD_OPT_EXPORT_NAME, unless the client wants none. */
const RESERVED_BYTES = 124;

const encoder = new TextEncoder();

/** The answer to any option except NBD_OPT_EXPORT_NAME. */
export function answerOption(
  option: number,
  data: Uint8Array,
  served: ExportInfo,
  negotiated: Negotiated,
): Answer {
  const answer = (...replies: Uint8Array[]): Answer => ({ replies, negotiated, next: "option", name: "" });
  switch (option) {
    case NBD_OPT_ABORT:
      return { ...answer(optionReply(option, NBD_REP_ACK)), next: "abort" };
    case NBD_OPT_LIST:
      if (data.length > 0) return answer(invalid(option, "this option has no data"));
      return answer(listEntry(served), optionReply(option, NBD_REP_ACK));
    case NBD_OPT_STRUCTURED_REPLY:
      if (data.length > 0) return answer(invalid(option, "this option has no data"));
      return { ...answer(optionReply(option, NBD_REP_ACK)), negotiated: { ...negotiated, structured: true } };
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
      return answerInfo(option, data, served, negotiated);
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT:
      return answerMetaContext(option, data, served, negotiated);
    default:
      return answer(optionReply(option, NBD_REP_ERR_UNSUP, "this server does not know the option"));
  }
}

/** The reply to an option. The data of an error is a message for people. */
export function optionReply(option: number, type: number, data: Uint8Array | string = ""): Uint8Array {
  const bytes = typeof data === "string" ? encoder.encode(data) : data;
  const reply = new Uint8Array(nbd_option_reply.size + bytes.length);
  const view = new DataView(reply.buffer);
  view.setBigUint64(nbd_option_reply.magic, NBD_REP_MAGIC);
  view.setUint32(nbd_option_reply.option, option);
  view.setUint32(nbd_option_reply.type, type);
  view.setUint32(nbd_option_reply.length, bytes.length);
  reply.set(bytes, nbd_option_reply.size);
  return reply;
}

/** The answer to NBD_OPT_EXPORT_NAME: size and flags, without a header. */
export function exportNameReply(served: ExportInfo, structured: boolean, noZeroes: boolean): Uint8Array {
  const reply = new Uint8Array(10 + (noZeroes ? 0 : RESERVED_BYTES));
  const view = new DataView(reply.buffer);
  view.setBigUint64(0, BigInt(served.size));
  view.setUint16(8, served.flags(structured));
  return reply;
}

function invalid(option: number, why: string): Uint8Array {
  return optionReply(option, NBD_REP_ERR_INVALID, why);
}

function listEntry(served: ExportInfo): Uint8Array {
  const name = encoder.encode(served.name);
  const description = encoder.encode(served.description);
  const data = new Uint8Array(4 + name.length + description.length);
  new DataView(data.buffer).setUint32(0, name.length);
  data.set(name, 4);
  data.set(description, 4 + name.length);
  return optionReply(NBD_OPT_LIST, NBD_REP_SERVER, data);
}

function answerInfo(option: number, data: Uint8Array, served: ExportInfo, negotiated: Negotiated): Answer {
  const answer = (...replies: Uint8Array[]): Answer => ({ replies, negotiated, next: "option", name: "" });
  const request = OptionData.parse(data, (reader) => ({
    name: reader.string(),
    wanted: Array.from({ length: reader.uint16() }, () => reader.uint16()),
  }));
  if (request === undefined) return answer(invalid(option, "the option's data is malformed"));
  if (!served.names.includes(request.name)) return answer(unknownExport(option));
  const { wanted, name } = request;
  const infos = [exportInformation(served, negotiated.structured), blockSizeInformation(served)];
  if (wanted.includes(NBD_INFO_NAME)) infos.push(textInformation(NBD_INFO_NAME, served.name));
  if (wanted.includes(NBD_INFO_DESCRIPTION) && served.description !== "") {
    infos.push(textInformation(NBD_INFO_DESCRIPTION, served.description));
  }
  const replies = infos.map((info) => optionReply(option, NBD_REP_INFO, info));
  replies.push(optionReply(option, NBD_REP_ACK));
  return { replies, negotiated, next: option === NBD_OPT_GO ? "transmission" : "option", name };
}

function unknownExport(option: number): Uint8Array {
  return optionReply(option, NBD_REP_ERR_UNKNOWN, "there is no export of this name");
}

function exportInformation(served: ExportInfo, structured: boolean): Uint8Array {
  const info = new Uint8Array(12);
  const view = new DataView(info.buffer);
  view.setUint16(0, NBD_INFO_EXPORT);
  view.setBigUint64(2, BigInt(served.size));
  view.setUint16(10, served.flags(structured));
  return info;
}

function blockSizeInformation(served: ExportInfo): Uint8Array {
  const info = new Uint8Array(14);
  const view = new DataView(info.buffer);
  view.setUint16(0, NBD_INFO_BLOCK_SIZE);
  view.setUint32(2, served.blockSize);
  view.setUint32(6, PREFERRED_BLOCK_BYTES);
  view.setUint32(10, MAX_PAYLOAD);
  return info;
}

function textInformation(type: number, text: string): Uint8Array {
  const bytes = encoder.encode(text);
  const info = new Uint8Array(2 + bytes.length);
  new DataView(info.buffer).setUint16(0, type);
  info.set(bytes, 2);
  return info;
}

function answerMetaContext(
  option: number,
  data: Uint8Array,
  served: ExportInfo,
  negotiated: Negotiated,
): Answer {
  const setting = option === NBD_OPT_SET_META_CONTEXT;
  // An earlier choice no longer counts, whatever the result.
  const cleared: Negotiated = setting ? { ...negotiated, context: undefined } : negotiated;
  const answer = (...replies: Uint8Array[]): Answer => ({
    replies,
    negotiated: cleared,
    next: "option",
    name: "",
  });
  if (!negotiated.structured) return answer(invalid(option, "ask for structured replies first"));
  const request = OptionData.parse(data, (reader) => ({ name: reader.string(), queries: reader.strings() }));
  if (request === undefined) return answer(invalid(option, "the option's data is malformed"));
  if (!served.names.includes(request.name)) return answer(unknownExport(option));
  const { name, queries } = request;
  const asked =
    queries.includes(ALLOCATION) || (!setting && (queries.length === 0 || queries.includes(BASE)));
  const acknowledged = optionReply(option, NBD_REP_ACK);
  if (!asked || !served.allocation) return answer(acknowledged);
  return {
    ...answer(contextReply(option), acknowledged),
    negotiated: setting ? { ...negotiated, context: name } : negotiated,
  };
}

function contextReply(option: number): Uint8Array {
  const name = encoder.encode(ALLOCATION);
  const data = new Uint8Array(4 + name.length);
  new DataView(data.buffer).setUint32(0, option === NBD_OPT_SET_META_CONTEXT ? ALLOCATION_CONTEXT_ID : 0);
  data.set(name, 4);
  return optionReply(option, NBD_REP_META_CONTEXT, data);
}
