/** What an action throws. */
import { ErrnoError, UserError } from "../../src/errors.ts";

/** The message of the UserError that `action` throws. @throws Error when it throws nothing, or something else. */
export function userError(action: () => unknown): string {
  return thrownBy(action, UserError).message;
}

/** The ErrnoError that `action` throws. @throws Error when it throws nothing, or something else. */
export function errnoError(action: () => unknown): ErrnoError {
  return thrownBy(action, ErrnoError);
}

/** The message of the UserError that a promise is rejected with. @throws Error when it is not, or with another. */
export async function userFailure(promise: Promise<unknown>): Promise<string> {
  return userError(await again(() => promise));
}

/** The ErrnoError that `action` throws, or rejects with. */
export async function errnoFailure(action: () => unknown): Promise<ErrnoError> {
  return errnoError(await again(action));
}

/** Throws what `action` has thrown or rejected with, if it has. */
async function again(action: () => unknown): Promise<() => void> {
  try {
    await action();
    return () => undefined;
  } catch (error) {
    return () => {
      throw error;
    };
  }
}

function thrownBy<Kind extends Error>(action: () => unknown, kind: new (...parameters: never) => Kind): Kind {
  try {
    action();
  } catch (error) {
    if (error instanceof kind) return error;
    throw error;
  }
  throw new Error(`no ${kind.name} was thrown`);
}
