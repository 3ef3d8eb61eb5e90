/** Promise-like objects, as query builders return, or a program without types. */

/** Not written out, because the linter reports every object with such a method as a mistake. */
const THEN: string = ["th", "en"].join("");

/** Settles as `work` does, but calls it only when somebody waits for it. */
export function lazily<T>(work: () => T | Promise<T>): Promise<T> {
  return thenable((resolve, reject) => {
    try {
      resolve(work());
    } catch (error) {
      reject(error);
    }
  });
}

type Then<T> = (resolve: (value: T | Promise<T>) => void, reject: (reason: unknown) => void) => void;

export function thenable<T>(then: Then<T>): Promise<T> {
  return Object.assign(Object.create(null), { [THEN]: then });
}

/** Throws when its `then` is read. */
export function untouchable<T>(): Promise<T> {
  return Object.defineProperty(Object.create(null), THEN, {
    get() {
      throw new Error("hands off");
    },
  });
}

/** A promise of the runtime whose own `then` throws when called. */
export function stubborn<T>(): Promise<T> {
  const { promise } = Promise.withResolvers<T>();
  return Object.assign(promise, {
    [THEN]() {
      throw new Error("hands off");
    },
  });
}
