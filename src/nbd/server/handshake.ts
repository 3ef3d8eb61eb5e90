/**
 * The server's side of the handshake, fixed newstyle (doc/proto.md, "Newstyle negotiation"), as a state machine: bytes
 * go in, bytes and finally a verdict come out. It does no I/O and has no clock. It limits what a stranger can send: the
 * length of an option and the number of options. The owner of the socket limits the time.
 */
import type { ExportInfo } from "./export.ts";
import { answerOption, exportNameReply, type Negotiated, optionReply } from "./handshake-options.ts";
import { decodeText } from "./option-data.ts";
import {
  NBD_FLAG_C_FIXED_NEWSTYLE,
  NBD_FLAG_C_NO_ZEROES,
  NBD_FLAG_FIXED_NEWSTYLE,
  NBD_FLAG_NO_ZEROES,
  NBD_INIT_MAGIC,
  nbd_option,
  NBD_OPT_EXPORT_NAME,
  NBD_OPTS_MAGIC,
  NBD_REP_ERR_TOO_BIG,
} from "../wire/numbers.ts";

/** The longest option that is parsed, in bytes: a name and three more strings of maximum length. */
export const OPTION_BYTES_MAX = 16 * 1024;
/** The longest option that is skipped with an error, in bytes: a longer one is not a mistake but an attack. */
export const OPTION_BYTES_SKIPPED_MAX = 2 ** 20;
/** The maximum of options in one handshake. Known clients send fewer than ten. */
export const OPTIONS_MAX = 64;

const CLIENT_FLAGS_BYTES = 4;
const GREETING_BYTES = 18;
const NOTHING = new Uint8Array();

/**
 * `transmission`: requests come next. `abort`: the client has ended the handshake. `drop`: cut the client off; `reason`
 * is for the log.
 */
export type Verdict =
  | { readonly kind: "transmission"; readonly structured: boolean; readonly allocation: boolean }
  | { readonly kind: "abort" }
  | { readonly kind: "drop"; readonly reason: string };

/** The result of a chunk. */
export interface Step {
  /** The bytes to send. */
  readonly reply: Uint8Array;
  /** Once it is set, nothing may be pushed. */
  readonly verdict: Verdict | undefined;
  /** The bytes of the chunk after the end of the handshake. */
  readonly rest: Uint8Array;
}

export class Handshake {
  readonly #export: ExportInfo;
  readonly #bytes = new Uint8Array(new ArrayBuffer(nbd_option.size + OPTION_BYTES_MAX));
  readonly #view = new DataView(this.#bytes.buffer);
  /** How many bytes have arrived, and how many the next step needs. */
  #length = 0;
  #needed = CLIENT_FLAGS_BYTES;
  /** How many bytes of a too long option remain to be discarded, and that option. */
  #skip = 0;
  #skipped = 0;
  #flagsSeen = false;
  #fixedNewstyle = false;
  #noZeroes = false;
  #options = 0;
  #negotiated: Negotiated = { structured: false, context: undefined };
  #replies: Uint8Array[] = [];

  constructor(served: ExportInfo) {
    this.#export = served;
  }

  /** The first bytes that the server sends. */
  greeting(): Uint8Array {
    const bytes = new Uint8Array(GREETING_BYTES);
    const view = new DataView(bytes.buffer);
    view.setBigUint64(0, NBD_INIT_MAGIC);
    view.setBigUint64(8, NBD_OPTS_MAGIC);
    view.setUint16(16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    return bytes;
  }

  push(chunk: Uint8Array): Step {
    let at = 0;
    let verdict: Verdict | undefined;
    while (verdict === undefined && at < chunk.length) {
      if (this.#skip > 0) {
        const skipped = Math.min(this.#skip, chunk.length - at);
        at += skipped;
        this.#skipPiece(skipped);
        continue;
      }
      const taken = Math.min(this.#needed - this.#length, chunk.length - at);
      this.#bytes.set(chunk.subarray(at, at + taken), this.#length);
      this.#length += taken;
      at += taken;
      if (this.#length === this.#needed) verdict = this.#step();
    }
    const reply = concatenate(this.#replies);
    this.#replies = [];
    return { reply, verdict, rest: at === chunk.length ? NOTHING : chunk.subarray(at) };
  }

  /** Processes the bytes of one step, which are complete. */
  #step(): Verdict | undefined {
    if (!this.#flagsSeen) return this.#clientFlags();
    if (this.#length > nbd_option.size) return this.#option();
    return this.#optionHeader();
  }

  #clientFlags(): Verdict | undefined {
    const flags = this.#view.getUint32(0);
    this.#flagsSeen = true;
    this.#fixedNewstyle = (flags & NBD_FLAG_C_FIXED_NEWSTYLE) !== 0;
    this.#noZeroes = (flags & NBD_FLAG_C_NO_ZEROES) !== 0;
    this.#expectOption();
    if ((flags & ~(NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES)) !== 0) {
      return drop(`it set flags that no client has: 0x${flags.toString(16)}`);
    }
    return undefined;
  }

  #optionHeader(): Verdict | undefined {
    const view = this.#view;
    if (view.getBigUint64(nbd_option.magic) !== NBD_OPTS_MAGIC)
      return drop("what it sent is not an NBD option");
    this.#options += 1;
    if (this.#options > OPTIONS_MAX) return drop(`it sent more than ${OPTIONS_MAX} options`);
    const option = view.getUint32(nbd_option.option);
    const length = view.getUint32(nbd_option.length);
    if (option !== NBD_OPT_EXPORT_NAME && !this.#fixedNewstyle) {
      // Without fixed newstyle the protocol has no answer for it.
      return drop(`it sent option ${option} without having asked for fixed newstyle`);
    }
    if (length > OPTION_BYTES_SKIPPED_MAX) return drop(`it sent an option of ${length} bytes`);
    if (length > OPTION_BYTES_MAX) {
      if (option === NBD_OPT_EXPORT_NAME) return drop(`it asked for an export by a name of ${length} bytes`);
      this.#skip = length;
      this.#skipped = option;
      this.#length = 0;
      return undefined;
    }
    this.#needed = nbd_option.size + length;
    return length === 0 ? this.#option() : undefined;
  }

  #option(): Verdict | undefined {
    const option = this.#view.getUint32(nbd_option.option);
    const data = this.#bytes.subarray(nbd_option.size, this.#needed);
    this.#expectOption();
    if (option === NBD_OPT_EXPORT_NAME) return this.#exportName(data);
    const answer = answerOption(option, data, this.#export, this.#negotiated);
    this.#replies.push(...answer.replies);
    this.#negotiated = answer.negotiated;
    if (answer.next === "abort") return { kind: "abort" };
    return answer.next === "transmission" ? this.#transmission(answer.name) : undefined;
  }

  /** The old way to choose an export: it can only succeed, or end the connection. */
  #exportName(data: Uint8Array): Verdict {
    const name = decodeText(data);
    if (name === undefined || !this.#export.names.includes(name))
      return drop(`it asked for an export that does not exist`);
    this.#replies.push(exportNameReply(this.#export, this.#negotiated.structured, this.#noZeroes));
    return this.#transmission(name);
  }

  #transmission(name: string): Verdict {
    const { structured, context } = this.#negotiated;
    // A context chosen for another name does not count.
    return { kind: "transmission", structured, allocation: context === name };
  }

  #skipPiece(bytes: number): void {
    this.#skip -= bytes;
    if (this.#skip > 0) return;
    this.#replies.push(optionReply(this.#skipped, NBD_REP_ERR_TOO_BIG, "the option is too long"));
    this.#expectOption();
  }

  #expectOption(): void {
    this.#length = 0;
    this.#needed = nbd_option.size;
  }
}

function drop(reason: string): Verdict {
  return { kind: "drop", reason };
}

function concatenate(parts: readonly Uint8Array[]): Uint8Array {
  const [only] = parts;
  if (only === undefined) return NOTHING;
  if (parts.length === 1) return only;
  return Buffer.concat(parts);
}
