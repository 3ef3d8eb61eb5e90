/** Starts a module of the tests' own where the code under test starts a worker. */
import { type WorkerName, WORKERS } from "../../src/serving/workers.ts";

/**
 * Until it is disposed of, the worker `name` is started from a module of this folder instead.
 * @param by `no-such` stands for a module that is missing.
 */
export function redirectWorkers(
  name: WorkerName,
  by: "dying" | "failing-queue" | "no-such" | "pausing-queue" | "stuck",
): Disposable {
  const Original = globalThis.Worker;
  globalThis.Worker = class extends Original {
    constructor(url: string | URL, options?: WorkerOptions) {
      const isMeant = String(url).endsWith(WORKERS[name].slice(1));
      super(isMeant ? new URL(`./${by}.worker.ts`, import.meta.url) : url, options);
    }
  };
  return {
    [Symbol.dispose]: () => {
      globalThis.Worker = Original;
    },
  };
}
