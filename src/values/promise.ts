/**
 * What counts as a promise: anything with a method `then`, as for `await`. Devices may be written without types, and
 * query builders return promise-like objects of their own, so every caller of a device's method asks here.
 */

/**
 * What a method returned: as it is, or as a promise of this runtime that settles in the same way.
 * @throws whatever reading its `then` throws. What `then` throws when it is called rejects the promise.
 */
export function adopt<T>(returned: T | Promise<T>): T | Promise<T> {
  if (!isThenable(returned)) return returned;
  // A promise with a `then` of its own is not trusted to settle later, once, and as a promise does.
  if (returned instanceof Promise && returned.then === Promise.prototype.then) return returned;
  return new Promise<T>((resolve) => resolve(returned));
}

/** The same for a method that returns nothing. @throws TypeError if it returned a value nevertheless. */
export function adoptDone(returned: void | Promise<void>): void | Promise<void> {
  if (returned === undefined) return undefined;
  const adopted = adopt(returned);
  if (adopted instanceof Promise) return adopted;
  throw new TypeError("a value was returned, where nothing or a promise is expected");
}

function isThenable(value: unknown): boolean {
  if ((typeof value !== "object" && typeof value !== "function") || value === null) return false;
  return "then" in value && typeof value.then === "function";
}
