/** Waiting with a time limit. */

/** Settles with `promise`, or after `milliseconds` if that is sooner; keeps the process alive no longer than needed. */
export async function within(promise: Promise<unknown>, milliseconds: number): Promise<void> {
  const { promise: late, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, milliseconds);
  try {
    await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
