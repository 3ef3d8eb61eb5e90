/** The smallest device: its pattern at every block, and no writes. */
import { expect, test } from "bun:test";
import { Deadbeef } from "../../devices/deadbeef.ts";
import type { BlockDevice } from "../../src/device.ts";

/** DE AD BE EF, repeated. */
function expected(length: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, index) => [0xde, 0xad, 0xbe, 0xef][index % 4] ?? 0);
}

test.each([512, 1024, 1536, 4096, 7 * 512, 64 * 1024, 2 ** 20 + 512])(
  "a read of %d bytes is filled to its end",
  (length) => {
    const buffer = new Uint8Array(length + 8);
    const device: BlockDevice = new Deadbeef(2 ** 30);
    device.read(buffer.subarray(4, 4 + length), 512);
    expect(Buffer.compare(buffer.subarray(4, 4 + length), expected(length))).toBe(0);
    // No byte before or after.
    expect([...buffer.subarray(0, 4), ...buffer.subarray(4 + length)]).toEqual(
      Array.from({ length: 8 }, () => 0),
    );
  },
);
