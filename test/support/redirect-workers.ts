/** Starts a module of the tests' own where the code under test starts a worker. */

/**
 * Until it is disposed of, a worker whose module's path ends with `from` is started from `to` instead.
 * @param to relative to this folder.
 */
export function redirectWorkers(from: string, to: string): Disposable {
  const Original = globalThis.Worker;
  globalThis.Worker = class extends Original {
    constructor(url: string | URL, options?: WorkerOptions) {
      super(String(url).endsWith(from) ? new URL(to, import.meta.url) : url, options);
    }
  };
  return {
    [Symbol.dispose]: () => {
      globalThis.Worker = Original;
    },
  };
}
