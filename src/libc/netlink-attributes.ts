/** The attributes of a netlink message (struct nlattr), written and read. Everything is in native byte order. */
import { NLA_ALIGNTO, NLA_F_NESTED, nlattr } from "../uapi/netlink.ts";

const TYPE_MASK = 0x3fff;

function aligned(length: number): number {
  return Math.ceil(length / NLA_ALIGNTO) * NLA_ALIGNTO;
}

/** Writes attributes, one after the other. */
export class AttributeWriter {
  #bytes = new Uint8Array(256);
  #end = 0;

  /** The bytes written so far: a view, valid until the next attribute. */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#end);
  }

  u32(type: number, value: number): this {
    const at = this.#begin(type, 4);
    new DataView(this.#bytes.buffer).setUint32(at, value, true);
    return this;
  }

  /** @param value a whole number that a double holds exactly. */
  u64(type: number, value: number): this {
    const at = this.#begin(type, 8);
    new DataView(this.#bytes.buffer).setBigUint64(at, BigInt(value), true);
    return this;
  }

  /** UTF-8, with its NUL. */
  text(type: number, value: string): this {
    const text = new TextEncoder().encode(`${value}\0`);
    const at = this.#begin(type, text.length);
    this.#bytes.set(text, at);
    return this;
  }

  nested(type: number, content: AttributeWriter): this {
    const { bytes } = content;
    const at = this.#begin(type | NLA_F_NESTED, bytes.length);
    this.#bytes.set(bytes, at);
    return this;
  }

  /** Writes the header of an attribute. Returns the offset of its value. */
  #begin(type: number, length: number): number {
    const start = this.#end;
    this.#end = start + aligned(nlattr.size + length);
    if (this.#end > this.#bytes.length) {
      const larger = new Uint8Array(2 * this.#end);
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    const view = new DataView(this.#bytes.buffer);
    view.setUint16(start + nlattr.nla_len, nlattr.size + length, true);
    view.setUint16(start + nlattr.nla_type, type, true);
    return start + nlattr.size;
  }
}

/** An attribute of a received message. */
export class Attribute {
  constructor(
    readonly type: number,
    readonly bytes: Uint8Array,
  ) {}

  get u8(): number {
    return this.bytes[0] ?? 0;
  }

  get u16(): number {
    return this.#view(2).getUint16(0, true);
  }

  get u32(): number {
    return this.#view(4).getUint32(0, true);
  }

  /** Without its NUL. */
  get text(): string {
    const end = this.bytes.indexOf(0);
    return new TextDecoder().decode(end < 0 ? this.bytes : this.bytes.subarray(0, end));
  }

  get nested(): readonly Attribute[] {
    return readAttributes(this.bytes);
  }

  #view(size: number): DataView {
    if (this.bytes.length < size) throw new Error(`attribute ${this.type} has ${this.bytes.length} bytes`);
    return new DataView(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength);
  }
}

/** The attributes in `bytes`, as views. Ignores one that is cut off. */
export function readAttributes(bytes: Uint8Array): readonly Attribute[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found: Attribute[] = [];
  for (let at = 0; at + nlattr.size <= bytes.length;) {
    const length = view.getUint16(at + nlattr.nla_len, true);
    if (length < nlattr.size || at + length > bytes.length) break;
    const type = view.getUint16(at + nlattr.nla_type, true) & TYPE_MASK;
    found.push(new Attribute(type, bytes.subarray(at + nlattr.size, at + length)));
    at += aligned(length);
  }
  return found;
}

export function findAttribute(list: readonly Attribute[], type: number): Attribute | undefined {
  return list.find((attribute) => attribute.type === type);
}
