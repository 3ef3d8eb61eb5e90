/** How long a request takes, and how it ends. */
import { adopt } from "../values/promise.ts";
import type { Done } from "./around.ts";

/** What a method threw. It can be anything, even undefined. */
export interface Failure {
  readonly thrown: unknown;
}

/** Calls `ended` when the request is done or has failed, and passes the failure on. */
export function timed(
  proceed: () => Done,
  ended: (microseconds: number, failure: Failure | undefined) => void,
): Done {
  const start = performance.now();
  const end = (failure?: Failure): void => ended((performance.now() - start) * 1000, failure);
  const failed = (thrown: unknown): never => {
    end({ thrown });
    throw thrown;
  };
  let done: Done;
  try {
    done = adopt(proceed());
  } catch (thrown) {
    return failed(thrown);
  }
  if (done instanceof Promise) return done.then(() => end(), failed);
  end();
  return done;
}
