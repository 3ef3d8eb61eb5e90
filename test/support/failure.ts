/** The exceptions of an action. */
import { ErrnoError, UserError } from "../../src/errors.ts";

/** The message of the UserError that `action` throws. @throws Error if it throws nothing, or something else. */
export function userError(action: () => unknown): string {
  return thrownBy(action, UserError).message;
}

/** The ErrnoError that `action` throws. @throws Error if it throws nothing, or something else. */
export function errnoError(action: () => unknown): ErrnoError {
  return thrownBy(action, ErrnoError);
}

/** The message of the UserError that a promise rejects with. @throws Error if it does not, or with another one. */
export async function userFailure(promise: Promise<unknown>): Promise<string> {
  return userError(await again(() => promise));
}

/** The ErrnoError that `action` throws, or rejects with. */
export async function errnoFailure(action: () => unknown): Promise<ErrnoError> {
  return errnoError(await again(action));
}

/** Returns a function that throws what `action` threw or rejected with, if anything. */
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
