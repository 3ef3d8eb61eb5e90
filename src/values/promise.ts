/**
 * What counts as a promise: anything with a method `then`, as for `await`. Devices are written without types as well,
 * and query builders and the like return objects of their own; whoever calls a method of a device asks here.
 */

/**
 * What a method returned, as it is, or as a promise of this runtime that settles as it does.
 * @throws what its `then` throws when it is looked at. What `then` throws when it is called rejects the promise.
 */
export function adopt<T>(returned: T | Promise<T>): T | Promise<T> {
  if (!isThenable(returned)) return returned;
  // One whose `then` is its own is not trusted to settle once, later, and as a promise.
  if (returned instanceof Promise && returned.then === Promise.prototype.then) return returned;
  return new Promise<T>((resolve) => resolve(returned));
}

/** Likewise for a method that has nothing to tell. @throws TypeError when it has returned a value all the same. */
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
