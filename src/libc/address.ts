/** Addresses of memory as plain numbers: exact, since user space ends at 2^47 and a number is exact to 2^53. */
import type { Pointer } from "bun:ffi";

/** The same number with the brand that bun:ffi's types require of an address. */
export function pointer(address: number): Pointer {
  return address as Pointer;
}

/** A path or other text as a C string: UTF-8 with its NUL, in memory that does not move. */
export function cString(text: string): Uint8Array {
  const bytes = new TextEncoder().encode(`${text}\0`);
  if (bytes.indexOf(0) !== bytes.length - 1) throw new Error(`a NUL byte in ${JSON.stringify(text)}`);
  return bytes;
}
