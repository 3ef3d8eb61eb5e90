/** Checks that a server sends only whole messages. */
import assert from "node:assert";

const OPTION_REPLY_MAGIC = 0x3e889045565a9n;
const SIMPLE_MAGIC = 0x67446698;
const STRUCTURED_MAGIC = 0x668e33ef;
const ERRORS: ReadonlySet<number> = new Set([0, 1, 5, 12, 22, 28, 75, 95, 108]);

/** @throws AssertionError */
export function checkOptionReplies(bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  while (at < bytes.length) {
    assert(bytes.length - at >= 20, "half an option reply");
    assert.equal(view.getBigUint64(at), OPTION_REPLY_MAGIC);
    at += 20 + view.getUint32(at + 16);
  }
  assert.equal(at, bytes.length, "half an option reply");
}

/**
 * Without the requests, simple replies look no different from the data of reads: it checks only the first of them.
 * @throws AssertionError
 */
export function checkReplies(bytes: Uint8Array, structured: boolean): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (!structured) {
    if (bytes.length === 0) return;
    assert.equal(view.getUint32(0), SIMPLE_MAGIC);
    assert(ERRORS.has(view.getUint32(4)), `error ${view.getUint32(4)}`);
    return;
  }
  let at = 0;
  while (at < bytes.length) {
    assert(bytes.length - at >= 20, "half a reply");
    assert.equal(view.getUint32(at), STRUCTURED_MAGIC);
    assert.equal(view.getUint16(at + 4), 1, "every reply is one chunk");
    const length = view.getUint32(at + 16);
    if (view.getUint16(at + 6) === 0) assert.equal(length, 0);
    at += 20 + length;
  }
  assert.equal(at, bytes.length, "half a reply");
}
