/** Goal: attributes have the layout that the kernel reads (struct nlattr), and one that is cut off is ignored. */
import { expect, test } from "bun:test";
import { AttributeWriter, findAttribute, readAttributes } from "../../src/libc/netlink-attributes.ts";

test("the bytes: length with the header, type, value, padded to four", () => {
  const inner = new AttributeWriter().u32(1, 7);
  const { bytes } = new AttributeWriter()
    .text(2, "nbd")
    .nested(3, inner)
    .u64(4, 2 ** 40);
  const text = "08000200 6e626400 0c000380 08000100 07000000 0c000400 00000000 00010000";
  expect(Buffer.from(bytes).toString("hex")).toBe(text.replaceAll(" ", ""));
  const read = readAttributes(bytes);
  expect(findAttribute(read, 2)?.text).toBe("nbd");
  expect(findAttribute(read, 3)?.nested.map(({ type, u32 }) => [type, u32])).toEqual([[1, 7]]);
  for (let length = 0; length < bytes.length; length += 1)
    expect(readAttributes(bytes.subarray(0, length)).length).toBe(length < 8 ? 0 : length < 20 ? 1 : 2);
});

test("a text longer than the room for it", () => {
  const text = "x".repeat(2000);
  expect(findAttribute(readAttributes(new AttributeWriter().text(1, text).bytes), 1)?.text).toBe(text);
});
