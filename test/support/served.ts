/** A device served by this process to real clients, on each kind of socket, with a directory for their files. */
import type { BlockDevice } from "../../src/device.ts";
import { type Attachment, serve, type ServeOptions } from "../../src/index.ts";
import { serveDevice } from "../../src/target/serve-device.ts";
import type { Transport } from "../../src/transport.ts";
import { AsyncStore } from "./async-devices.ts";
import { Shadow } from "./shadow.ts";
import { TemporaryDirectory } from "./temporary.ts";

/** Where a server listens, and whether its thread has nothing else to do: as the command line's, and not the library's. */
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

/** Devices with every method, whose answers are there at once, or promised. */
export const STORES: readonly (readonly [string, (size: number) => Shadow])[] = [
  ["a plain device", (size) => new Shadow(size)],
  ["promises", (size) => new AsyncStore(size)],
];

/** A server as a test needs it. */
type Server = Pick<Attachment, "path" | "close">;

export class ServedDevice implements AsyncDisposable {
  readonly directory: TemporaryDirectory;
  readonly server: Server;
  /** What the server had to say. */
  readonly lines: readonly string[];

  private constructor(directory: TemporaryDirectory, server: Server, lines: readonly string[]) {
    this.directory = directory;
    this.server = server;
    this.lines = lines;
  }

  static async start(target: Target, device: BlockDevice, options: ServeOptions = {}): Promise<ServedDevice> {
    const directory = new TemporaryDirectory();
    const lines: string[] = [];
    const log = (line: string): unknown => lines.push(line);
    const begin = target.ownsThread ? serveAlone : serve;
    try {
      const server = await begin(device, target.in(directory.path), { log, ...options });
      return new ServedDevice(directory, server, lines);
    } catch (error) {
      directory[Symbol.dispose]();
      throw error;
    }
  }

  get uri(): string {
    return this.server.path;
  }

  join(name: string): string {
    return this.directory.join(name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.close();
    this.directory[Symbol.dispose]();
  }
}

/** As the command line does. The clients are other processes: this one has the thread between turns alone. */
async function serveAlone(device: BlockDevice, target: string, options: ServeOptions): Promise<Server> {
  const ready = Promise.withResolvers<Transport>();
  const done = serveDevice(device, target, { ...options, ownsThread: true, onReady: ready.resolve });
  done.catch(ready.reject);
  const transport = await ready.promise;
  const close = (): Promise<void> => {
    transport.detach();
    return done;
  };
  return { path: transport.path, close };
}
