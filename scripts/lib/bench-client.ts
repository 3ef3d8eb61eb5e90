/** One run of the benchmark's client on a thread of its own. */
import type { ClientResult, ClientRun } from "./bench-client.worker.ts";

/** What to ask for; see ClientRun. */
export type Workload = Omit<ClientRun, "fd" | "size">;

/** Runs the client against a connected socket, which it closes. Resolves to its requests per second. */
export function runClient(fd: number, size: number, workload: Workload): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const worker = new Worker(new URL("./bench-client.worker.ts", import.meta.url), { ref: false });
  worker.addEventListener("message", (event: MessageEvent<ClientResult>) => resolve(event.data.iops));
  worker.addEventListener("error", (event) => reject(new Error(event.message)));
  const { command, length, depth, count } = workload;
  worker.postMessage({ fd, command, length, depth, count, size } satisfies ClientRun);
  return promise;
}
