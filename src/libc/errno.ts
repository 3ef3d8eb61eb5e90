/**
 * How the wrappers of this folder report failure: as the kernel does, with a negative errno in place of the result.
 * A number costs nothing on the hot path and cannot get lost. Code that does not need the number calls {@link unwrap},
 * which throws an exception that says everything.
 */
import { read } from "bun:ffi";
import { ErrnoError } from "../errors.ts";
import { libc } from "./library.ts";

/**
 * The result of a C call that returns -1 and sets errno: -errno if it is negative, else unchanged. Call it directly on
 * the result: another C call in between would overwrite errno.
 */
export function negativeErrno(result: number | bigint): number {
  const value = typeof result === "number" ? result : Number(result);
  if (value >= 0) return value;
  return -read.i32(libc.__errno_location(), 0);
}

/**
 * Returns the result unless it is negative.
 * @param what was tried, for the message: `open /dev/nbd0`.
 * @throws ErrnoError with the errno and the C library's text for it.
 */
export function unwrap(result: number, what: string): number {
  if (result >= 0) return result;
  throw new ErrnoError(-result, `${what}: ${errorText(-result)}`);
}

/** strerror(3): `No such file or directory` for 2. */
export function errorText(errno: number): string {
  return libc.strerror(errno) ?? `error ${errno}`;
}
