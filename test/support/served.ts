/** A device served by this process to real clients, on each kind of socket, with a directory for their files. */
import type { BlockDevice } from "../../src/device.ts";
import type { ServeOptions } from "../../src/index.ts";
import { serveDevice } from "../../src/target/serve-device.ts";
import type { Transport } from "../../src/transport.ts";
import { AsyncStore } from "./async-devices.ts";
import { Shadow } from "./shadow.ts";
import { TemporaryDirectory } from "./temporary.ts";

/** Where a server listens, and whether its thread has nothing else to do: true only for the command line. */
export interface Target {
  readonly in: (directory: string) => string;
  readonly ownsThread: boolean;
}

const unix = (directory: string): string => `unix:${directory}/disk.sock`;
const tcp = (): string => "tcp:127.0.0.1:0";

export const TARGETS: readonly (readonly [string, Target])[] = [
  ["a Unix socket", { in: unix, ownsThread: false }],
  ["TCP", { in: tcp, ownsThread: false }],
  ["a Unix socket, by a thread of its own", { in: unix, ownsThread: true }],
  ["TCP, by a thread of its own", { in: tcp, ownsThread: true }],
];

/** Devices with every method, which answer at once or return promises. */
export const STORES: readonly (readonly [string, (size: number) => Shadow])[] = [
  ["a plain device", (size) => new Shadow(size)],
  ["promises", (size) => new AsyncStore(size)],
];

export class ServedDevice implements AsyncDisposable {
  readonly directory = new TemporaryDirectory();
  /** The lines that the server has logged. */
  readonly lines: string[] = [];
  readonly #ready = Promise.withResolvers<Transport>();
  readonly #done: Promise<void>;
  #transport: Transport | undefined;

  private constructor(target: Target, device: BlockDevice, options: ServeOptions) {
    const log = (line: string): unknown => this.lines.push(line);
    const { ownsThread } = target;
    const onReady = this.#ready.resolve;
    this.#done = serveDevice(device, target.in(this.directory.path), {
      log,
      ...options,
      ownsThread,
      onReady,
    });
    this.#done.catch(this.#ready.reject);
  }

  static async start(target: Target, device: BlockDevice, options: ServeOptions = {}): Promise<ServedDevice> {
    const served = new ServedDevice(target, device, options);
    served.#transport = await served.#ready.promise;
    return served;
  }

  get uri(): string {
    return this.#transport?.path ?? "";
  }

  join(name: string): string {
    return this.directory.join(name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#transport?.detach();
    await this.#done;
    this.directory[Symbol.dispose]();
  }
}
