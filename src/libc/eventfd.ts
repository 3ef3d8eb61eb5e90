/** eventfd(2): a counter with a file descriptor, by which the kernel wakes an event loop. */
import { EFD_CLOEXEC, EFD_NONBLOCK } from "../uapi/eventfd.ts";
import { unwrap, negativeErrno } from "./errno.ts";
import { libc } from "./library.ts";

/** The number 1 as eight bytes for write(2). */
const ONE = Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0);

/** A counter at 0 whose reads do not wait. Returns the file descriptor, which the caller closes. @throws ErrnoError */
export function eventfd(): number {
  return unwrap(negativeErrno(libc.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), "eventfd");
}

/** Adds 1 to the counter of an eventfd(2). */
export function addTo(fd: number): void {
  unwrap(negativeErrno(libc.write(fd, ONE, ONE.byteLength)), "write to an eventfd");
}

/** The buffer that a counter is read into. */
const count = new Uint8Array(new ArrayBuffer(8));

/** Sets the counter of an eventfd(2) to 0. */
export function drain(fd: number): void {
  negativeErrno(libc.read(fd, count, count.byteLength));
}
