/** A device served by this process to real clients, on each kind of socket, with a directory for their files. */
import type { BlockDevice } from "../../src/device.ts";
import { type Attachment, serve, type ServeOptions } from "../../src/index.ts";
import { TemporaryDirectory } from "./temporary.ts";

/** Where a server can listen: the target in a directory. */
export const TARGETS = [
  ["a Unix socket", (directory: string): string => `unix:${directory}/disk.sock`],
  ["TCP", (): string => "tcp:127.0.0.1:0"],
] as const;

export class ServedDevice implements AsyncDisposable {
  readonly directory: TemporaryDirectory;
  readonly server: Attachment;
  /** What the server had to say. */
  readonly lines: readonly string[];

  private constructor(directory: TemporaryDirectory, server: Attachment, lines: readonly string[]) {
    this.directory = directory;
    this.server = server;
    this.lines = lines;
  }

  static async start(
    target: (directory: string) => string,
    device: BlockDevice,
    options: ServeOptions = {},
  ): Promise<ServedDevice> {
    const directory = new TemporaryDirectory();
    const lines: string[] = [];
    const log = (line: string): unknown => lines.push(line);
    try {
      const server = await serve(device, target(directory.path), { log, ...options });
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
