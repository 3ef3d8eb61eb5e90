/** A trace of a device that another process serves. */
import { type ControlClient, connectToServer } from "../control/client.ts";
import { decodeTraced, type Traced } from "./request.ts";

export class TraceSession implements Disposable {
  readonly #client: ControlClient;
  readonly #start: number;
  /** The size of the device, in bytes. */
  readonly size: number;
  readonly writeThrough: boolean;

  private constructor(client: ControlClient, start: number, size: number, writeThrough: boolean) {
    this.#client = client;
    this.#start = start;
    this.size = size;
    this.writeThrough = writeThrough;
  }

  /**
   * Begins to trace the requests that are answered from now on.
   * @param data whether to include the data of writes.
   * @throws UserError if nobody serves the target, or its server does not answer.
   */
  static async begin(target: string, data: boolean): Promise<TraceSession> {
    const client = await connectToServer(target);
    try {
      const { now, size, writeThrough } = await client.ask("trace-begin", { data });
      return new TraceSession(client, Number(now), Number(size), writeThrough === true);
    } catch (error) {
      client[Symbol.dispose]();
      throw error;
    }
  }

  /** The ID of the process that serves the device. */
  get pid(): number {
    return this.#client.pid;
  }

  /**
   * The requests answered since the last call. Waits if the process is stopped.
   * @throws UserError if the process has ended.
   */
  async next(): Promise<Traced> {
    return decodeTraced(await this.#client.ask("trace-next", {}, Infinity), this.#start);
  }

  [Symbol.dispose](): void {
    this.#client[Symbol.dispose]();
  }
}
