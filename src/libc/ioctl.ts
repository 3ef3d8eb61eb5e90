/** ioctl(2). Each function returns what the call returns, or -errno (see errno.ts). */
import { ptr } from "bun:ffi";
import { negativeErrno } from "./errno.ts";
import { libc } from "./library.ts";

/** An ioctl whose argument is a number, or is ignored. */
export function ioctl(fd: number, request: number, argument = 0): number {
  return negativeErrno(libc.ioctl(fd, request, argument));
}

/** An ioctl whose argument is memory: the caller's, read or filled during the call. */
export function ioctlBuffer(fd: number, request: number, argument: BigUint64Array | Int32Array): number {
  return negativeErrno(libc.ioctl(fd, request, ptr(argument)));
}
