/** A server in this process, for any kind of device and every way to wait for clients. */
import { spyOn } from "bun:test";
import type { BlockDevice } from "../../src/device.ts";
import { Dispatch } from "../../src/dispatch.ts";
import { libc } from "../../src/libc/library.ts";
import { Stop } from "../../src/serving/stop.ts";
import type { ServerOptions } from "../../src/nbd/server/limits.ts";
import { NbdServer } from "../../src/nbd/server/server.ts";
import { parseServerTarget } from "../../src/nbd/server/target.ts";
import { AsyncStore, SlowStore } from "./async-devices.ts";
import { Random } from "./random.ts";
import { RestlessDevice } from "./restless-device.ts";
import { MemoryShadow, Shadow } from "./shadow.ts";

/** How the server waits for clients: the thread sleeps; a ring wakes the event loop; another thread does. */
export type Way = "blocking" | "by a ring" | "by a thread";

export const WAYS: readonly Way[] = ["blocking", "by a ring", "by a thread"];

/** A way to wait, and a device. */
export interface Kind {
  readonly way: Way;
  readonly make: (size: number) => BlockDevice;
}

export const DEVICES: readonly (readonly [string, Kind["make"]])[] = [
  ["a plain device", (size) => new Shadow(size)],
  ["memory", (size) => new MemoryShadow(size)],
  ["promises", (size) => new AsyncStore(size)],
  ["promises that need the event loop", (size) => new SlowStore(size)],
  ["a device that is woken", (size) => new RestlessDevice(size, new Random(1))],
];

export const KINDS_SERVED: readonly (readonly [string, Kind])[] = WAYS.flatMap((way) =>
  DEVICES.map(([name, make]) => [`${way}, ${name}`, { way, make }] as const),
);

/** A server on a TCP port of its own, or where `target` says. */
export class RunningServer implements AsyncDisposable {
  readonly lines: string[] = [];
  readonly server: NbdServer;
  readonly ended: Promise<void>;
  readonly #noRing: (() => void) | undefined;

  private constructor(device: BlockDevice, way: Way, options: ServerOptions, onReady: () => void) {
    const log = (line: string): unknown => this.lines.push(line);
    if (way === "by a thread") this.#noRing = withoutRings();
    const ownsThread = way === "blocking";
    const target = parseServerTarget("tcp:127.0.0.1:0");
    this.server = new NbdServer(target, new Dispatch(device, { log }), { log, ownsThread, ...options });
    const stop = new Stop("a server");
    this.ended = this.server.serve(onReady, stop).finally(() => {
      this.#noRing?.();
      return device.close?.();
    });
  }

  static async start(way: Way, device: BlockDevice, options: ServerOptions = {}): Promise<RunningServer> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const running = new RunningServer(device, way, options, resolve);
    await Promise.race([promise, running.ended]);
    return running;
  }

  get uri(): string {
    return this.server.path;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.server.detach();
    await this.ended;
  }
}

/** Makes io_uring unavailable. Returns a function that undoes this. */
function withoutRings(): () => void {
  // A failing close(2) sets errno.
  const refuse = Object.assign(() => libc.close(-1), libc.io_uring_setup);
  const spy = spyOn(libc, "io_uring_setup").mockImplementation(refuse);
  return () => spy.mockRestore();
}
