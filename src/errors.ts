/**
 * The kinds of failure this project tells apart. Anything else that is thrown is a mistake in the program.
 */
import { errno, errnoName, type ErrnoCode } from "./uapi/errno.ts";

/** include/linux/err.h. */
const MAX_ERRNO = 4095;

/**
 * A failure that carries an errno. Thrown by a device's method, it is the answer that the peer gets: the kernel
 * turns each into EIO for its callers and logs the number, other NBD clients see the number itself.
 *
 * @example
 *     throw new ErrnoError("ENOSPC", "the overlay is full");
 */
export class ErrnoError extends Error {
  override readonly name: string = "ErrnoError";
  /** A positive error number, as in errno(3). */
  readonly errno: number;

  /** @param number a name such as `ENOSPC`, or a positive number. */
  constructor(number: ErrnoCode | number, message?: string, options?: ErrorOptions) {
    const value = typeof number === "number" ? number : errno[number];
    // An error that says "no error" would reach the peer as success.
    const known = errnoOr(value);
    super(message ?? errnoName(known), options);
    this.errno = known;
  }

  /** `ENOSPC` and the like. */
  get code(): string {
    return errnoName(this.errno);
  }
}

/** A failure that follows from one already reported: it is an answer, without another line in the log. */
export class RepeatedError extends ErrnoError {
  override readonly name = "RepeatedError";
}

/**
 * A failure that the user can do something about. The message is one line that names the cause and, after a colon
 * or a comma, the remedy; it is shown as it is, without a stack trace.
 */
export class UserError extends Error {
  override readonly name: string = "UserError";
}

/** EIO for numbers that are no errno of the kernel's: truncated to 32 bits, some would mean success. */
function errnoOr(number: number): number {
  return Number.isInteger(number) && number > 0 && number <= MAX_ERRNO ? number : errno.EIO;
}

/** The errno that stands for whatever was thrown: its own for an ErrnoError, EIO for anything else. Never throws. */
export function errnoOf(thrown: unknown): number {
  try {
    const number = thrown instanceof ErrnoError ? thrown.errno : errno.EIO;
    // A program may have overwritten the number: that must not turn a failure into success.
    return errnoOr(number);
  } catch {
    // A proxy whose traps throw.
    return errno.EIO;
  }
}

/** Whether what was thrown is an ErrnoError, and which kind. Never throws. */
export function errnoKind(thrown: unknown): "none" | "errno" | "repeated" {
  try {
    if (!(thrown instanceof ErrnoError)) return "none";
    return thrown instanceof RepeatedError ? "repeated" : "errno";
  } catch {
    return "none";
  }
}

/** One line for whatever was thrown. Never throws. */
export function messageOf(thrown: unknown): string {
  try {
    return String(thrown instanceof Error ? thrown.message : thrown);
  } catch {
    return "something that cannot be printed";
  }
}
