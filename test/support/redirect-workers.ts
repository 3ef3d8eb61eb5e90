/** Starts one of the tests' own modules where the code under test starts a worker. */
import { type WorkerName, WORKERS } from "../../src/serving/workers.ts";

/**
 * Until it is disposed of, a module of this folder is started as the worker `name`.
 * @param by `no-such` stands for a missing module.
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
