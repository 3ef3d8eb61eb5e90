/** A time limit for waiting. */
import { UserError } from "../errors.ts";

/**
 * What `value` is or settles to.
 * @param what the subject of the message.
 * @throws UserError if it has not settled after `limitMs`.
 */
export async function withinLimit<Value>(
  value: Value | PromiseLike<Value>,
  limitMs: number,
  what: string,
): Promise<Value> {
  const { promise, reject } = Promise.withResolvers<never>();
  const late = new UserError(`${what} is not done after ${limitMs / 1000} s: see what it waits for`);
  const timer = setTimeout(() => reject(late), limitMs);
  try {
    return await Promise.race([value, promise]);
  } finally {
    clearTimeout(timer);
  }
}
