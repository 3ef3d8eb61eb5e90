/**
 * What every device command does once it knows its device: attach it, tell the world, serve until a signal, the end
 * of `--run` or a disconnect by somebody else, and clean up.
 */
import type { BlockDevice } from "../../device.ts";
import { applyLayers } from "../../layers/layer.ts";
import { avoidOutOfMemoryKiller } from "../../libc/process.ts";
import { enterCurrentRoot, inCurrentRoot } from "../../libc/root.ts";
import { Stop } from "../../serving/stop.ts";
import { serveDevice } from "../../target/serve-device.ts";
import type { Transport } from "../../transport.ts";
import { isInUse } from "../../nodes/claim.ts";
import { findUse } from "../../nodes/node-use.ts";
import { isDaemonChild, leaveTerminal, startDaemon } from "./daemon.ts";
import { EndBySignal } from "./end-by-signal.ts";
import { VERSION } from "../help/documentation.ts";
import { announce, log, logToSyslog } from "../log.ts";
import { notifyServiceManager } from "./service-manager.ts";
import { removePidFile, writePidFile } from "./pid-file.ts";
import { RunningCommand } from "./running-command.ts";
import type { ServingOptions } from "../options/serving.ts";
import { traceLine } from "./trace.ts";

type StopSignal = "SIGINT" | "SIGTERM" | "SIGHUP";

/** A device and how to undo its making, should it not come to be attached. */
export interface MadeDevice {
  readonly device: BlockDevice;
  /** It may have timers and sockets of its own: the event loop is to be left free. */
  readonly needsEventLoop?: boolean;
  /** The module that it comes from: its path. */
  readonly origin?: string;
  readonly undo?: () => void;
}

/** Returns the exit status. @throws UserError */
export async function serveCommand(
  target: string,
  options: ServingOptions,
  make: () => MadeDevice,
): Promise<number> {
  if (options.daemon && !isDaemonChild()) return startDaemon(options.initrd);
  const stop = new Stop(target, {
    ...options,
    log: (line) =>
      log.warn(`${line}; a second SIGINT or SIGTERM cuts it off, and what is not written is lost`),
  });
  const serving = new Serving(options, stop);
  const { device, needsEventLoop = false, origin, undo } = make();
  try {
    const serveOptions = {
      ...options,
      origin,
      control: { words: process.argv.slice(2), version: VERSION, isWatchful: options.run !== undefined },
      ownsThread: !needsEventLoop,
      warmUp: true,
      trace: options.verbose ? traceLine : undefined,
      log: (line: string) => log.warn(line),
      onReady: (attachment: Transport) => serving.ready(attachment),
    };
    await serveDevice(applyLayers(device, options.stack.layers), target, serveOptions, stop);
  } catch (error) {
    if (!serving.wasReady) undo?.();
    throw error;
  } finally {
    serving.end();
  }
  return serving.exitStatus();
}

/** The life of one attachment as the command line sees it. */
class Serving {
  readonly #endBySignal: EndBySignal | undefined;
  /** Whether all was done that is to be done when the device can be used. */
  wasReady = false;
  #attachment: Transport | undefined;
  #inUse: Promise<boolean> | undefined;
  #command: RunningCommand | undefined;
  /** How many have come of those of which the second one cuts. */
  #signals = 0;
  #isEnding = false;

  constructor(
    readonly options: ServingOptions,
    readonly stop: Stop,
  ) {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
      process.on(signal, () => void this.#receive(signal));
    // Signals may be meant to do nothing to the device of a root file system.
    if (!options.initrd) this.#endBySignal = EndBySignal.make(options.stopTimeoutMs);
    // A stop signal that takes effect makes the kernel end the device when the process goes on.
    for (const signal of ["SIGTSTP", "SIGTTIN", "SIGTTOU"] as const) {
      process.on(signal, () => log.warn(`${signal} ignored: a stop would cut the device off; use --daemon`));
    }
  }

  ready(attachment: Transport): void {
    this.#attachment = attachment;
    if (this.options.pidFile !== undefined) writePidFile(this.options.pidFile);
    notifyServiceManager("READY=1");
    if (isDaemonChild()) {
      // The device is not to vanish from under a file system; its memory is used as that of a tmpfs is.
      if (!avoidOutOfMemoryKiller() && this.options.initrd)
        log.warn("the kernel may end this process when memory runs out: run it as root");
      logToSyslog();
      leaveTerminal(attachment.path);
    } else {
      announce(attachment.path);
    }
    this.#endBySignal?.ready(attachment.path);
    if (this.options.run === undefined) {
      attachment.watchful = false;
    } else {
      this.#command = new RunningCommand(this.options.run, attachment.path);
      void this.#command.exited.then(() => this.stop.begin());
    }
    this.wasReady = true;
  }

  end(): void {
    this.#endBySignal?.over(this.stop.reason !== undefined);
    if (this.options.pidFile === undefined) return;
    const failure = removePidFile(inCurrentRoot(this.options.pidFile));
    if (failure !== undefined) log.warn(failure);
  }

  /** That of the command of `--run`; 0 without one. */
  exitStatus(): Promise<number> | number {
    return this.#command?.exited ?? 0;
  }

  /** Whether a root's device is in use the kernel is asked, which takes a moment. */
  async #receive(signal: StopSignal): Promise<void> {
    const path = this.options.initrd ? this.#attachment?.path : undefined;
    const inUse = path !== undefined && useOf(path) === undefined && (await this.#isInUse(path));
    this.#stop(signal, inUse ? "in use" : undefined);
  }

  /** Asked once for signals that come together: each claims the node for a moment, and would find the other's claim. */
  #isInUse(path: string): Promise<boolean> {
    this.#inUse ??= isInUse(path).finally(() => (this.#inUse = undefined));
    return this.#inUse;
  }

  #stop(signal: StopSignal, hiddenUse: string | undefined): void {
    const attachment = this.#attachment;
    const use = attachment === undefined ? undefined : (useOf(attachment.path) ?? hiddenUse);
    const reason = this.#reasonToStay(signal, use);
    if (reason !== undefined) return log.info(`${signal} ignored: ${reason}`);
    // Of a terminal that is closed there are several: from the shell, from the kernel, from a session's end.
    if (signal !== "SIGHUP") this.#signals += 1;
    else if (this.#isEnding) return;
    if (this.#signals > 1) return this.stop.cut();
    this.#isEnding = true;
    if (attachment === undefined) return this.stop.begin();
    notifyServiceManager("STOPPING=1");
    if (this.#command !== undefined) {
      this.stop.startClock();
      return this.#command.signal(signal);
    }
    if (use !== undefined) log.warn(`${attachment.path} is ${use}: it fails from now on, let go of it`);
    // What is written back is found by its path.
    if (isDaemonChild()) enterCurrentRoot();
    this.stop.begin();
  }

  /** A daemon has no terminal to lose; and who ends all processes does not mean the one that the root lies on. */
  #reasonToStay(signal: string, use: string | undefined): string | undefined {
    if (signal === "SIGHUP" && isDaemonChild()) return "SIGTERM ends a daemon";
    if (!this.options.initrd || use === undefined) return undefined;
    return `the device is ${use}; "tsbuse disconnect --force" takes it away all the same`;
  }
}

/** As the rest of a sentence: who uses the node or its partitions. Undefined when nobody does, or it is no node. */
function useOf(path: string): string | undefined {
  const name = /^\/dev\/([a-z]+\d+)$/.exec(path)?.[1];
  return name === undefined ? undefined : findUse(name)?.how;
}
