/**
 * What every device command does with its device: attaches it, announces it, serves until a signal, the end of `--run`
 * or a disconnect by another process, and cleans up.
 */
import type { Heirloom } from "../../control/handover.ts";
import { Claim, type Inherited } from "../../control/claim.ts";
import type { BlockDevice } from "../../device.ts";
import { LayerTimes } from "../../layers/layer-times.ts";
import { avoidOutOfMemoryKiller } from "../../libc/process.ts";
import { enterCurrentRoot, inCurrentRoot } from "../../libc/root.ts";
import { Stop } from "../../serving/stop.ts";
import { serveDevice, type ServeDeviceOptions } from "../../target/serve-device.ts";
import type { Transport } from "../../transport.ts";
import { isDaemonChild, leaveTerminal, startDaemon } from "./daemon.ts";
import { EndBySignal } from "./end-by-signal.ts";
import { VERSION } from "../help/documentation.ts";
import { announce, log, logToSyslog } from "../log.ts";
import { claimedBy, heldBy, openedBy, useOf } from "./node-users.ts";
import { checkHeirloom, filesFor, withFiles } from "./data-in-memory.ts";
import { joinService } from "./join-service.ts";
import { isSystemStopping, notifyServiceManager } from "./service-manager.ts";
import { removePidFile, writePidFile } from "./pid-file.ts";
import { becomeSwapServer } from "./swap.ts";
import { RunningCommand } from "./running-command.ts";
import type { ServingOptions } from "../options/serving.ts";
import { traceLine } from "./trace.ts";

/** How often to check whether a use has ended, in milliseconds. */
const USE_POLL_MS = 100;
/** Small, because the memory of all requests in flight is allocated at the start. */
const SWAP_QUEUE_DEPTH = 32;
const NOT_FOR_SWAP = 'what it holds is memory itself: give "loop FILE --direct"';

type StopSignal = "SIGINT" | "SIGTERM" | "SIGHUP";

/** A device, and how to undo its creation if it is not attached. */
export interface MadeDevice {
  readonly device: BlockDevice;
  /** Whether it may have timers and sockets of its own: the event loop must then stay free. */
  readonly needsEventLoop?: boolean;
  /** Why it cannot hold swap, with the remedy; false if it can. */
  readonly whyNoSwap?: string | false | undefined;
  /** The path of the module that it comes from. */
  readonly origin?: string;
  readonly undo?: () => void;
  /** What a process receives that takes the device over while it is in use. */
  readonly heirloom?: Heirloom;
}

/** Returns the exit status. @throws UserError */
export async function serveCommand(
  target: string,
  options: ServingOptions,
  make: (inherited?: Inherited) => MadeDevice,
): Promise<number> {
  if (options.daemon && !isDaemonChild()) return startDaemon(options.initrd);
  const stop = new Stop(target, {
    ...options,
    log: (line) =>
      log.warn(`${line}; a second SIGINT or SIGTERM cuts it off, and what is not written is lost`),
  });
  const serving = new Serving(options, stop);
  using claim = options.takeOver ? await Claim.make(target, { log: (line) => log.warn(line) }) : undefined;
  const files = options.handover || options.takeOver ? filesFor(options.stack, claim) : undefined;
  if (claim?.notifySocket !== undefined) joinService(claim.notifySocket, claim.pid);
  const { device, origin, undo, heirloom, ...made } = make(claim?.inherited);
  const { needsEventLoop = false, whyNoSwap = NOT_FOR_SWAP } = made;
  try {
    if (options.swap) {
      const whyNot = whyNoSwap === false ? undefined : whyNoSwap;
      await closedUnless(device, () => becomeSwapServer(target, options, whyNot));
    }
    const { stack } = options;
    const layers = new LayerTimes();
    const layered = layers.apply(device, stack.layers, stack.names);
    const all = withFiles(heirloom, files);
    if (options.handover || all?.isData === true)
      await closedUnless(layered, () => checkHeirloom(all, options));
    const serveOptions = {
      ...options,
      queueDepth: options.queueDepth ?? (options.swap ? SWAP_QUEUE_DEPTH : undefined),
      origin,
      takeOver: claim,
      control: controlOptions(options, all, layers),
      ownsThread: !needsEventLoop,
      warmUp: true,
      trace: options.verbose ? traceLine : undefined,
      log: (line: string) => log.warn(line),
      onReady: (attachment: Transport) => serving.ready(attachment),
    };
    await serveDevice(layered, target, serveOptions, stop);
  } catch (error) {
    if (!serving.wasReady) undo?.();
    throw error;
  } finally {
    serving.end();
  }
  return serving.exitStatus();
}

/** What the control socket reports and does. */
function controlOptions(
  options: ServingOptions,
  heirloom: Heirloom | undefined,
  layers: LayerTimes,
): ServeDeviceOptions["control"] {
  return {
    words: process.argv.slice(2),
    version: VERSION,
    runsCommand: options.run !== undefined,
    heirloom,
    layers,
    onHandedOn: (pid) => notifyServiceManager(`MAINPID=${pid}`),
  };
}

/** Closes the device if `prepare` fails. */
async function closedUnless(device: BlockDevice, prepare: () => void): Promise<void> {
  try {
    prepare();
  } catch (error) {
    await device.close?.();
    throw error;
  }
}

/** One attachment, from the command line's point of view. */
class Serving {
  readonly #endBySignal: EndBySignal | undefined;
  /** Whether everything that must be done when the device is ready has been done. */
  wasReady = false;
  #attachment: Transport | undefined;
  #hiddenUse: Promise<string | undefined> | undefined;
  #command: RunningCommand | undefined;
  /** How many signals have arrived of the kind whose second one cuts the device off. */
  #signals = 0;
  #isEnding = false;
  /** Told to end, but first waiting until the node is unused. */
  #isStaying = false;

  constructor(
    readonly options: ServingOptions,
    readonly stop: Stop,
  ) {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
      process.on(signal, () => void this.#receive(signal));
    // With --initrd, signals may have to leave the device of a root file system alone.
    if (!options.initrd) this.#endBySignal = EndBySignal.make(options.stopTimeoutMs);
    // A stop signal would make the kernel end the device when the process continues.
    for (const signal of ["SIGTSTP", "SIGTTIN", "SIGTTOU"] as const) {
      process.on(signal, () => log.warn(`${signal} ignored: a stop would cut the device off; use --daemon`));
    }
  }

  ready(attachment: Transport): void {
    this.#attachment = attachment;
    if (this.options.pidFile !== undefined) writePidFile(this.options.pidFile);
    notifyServiceManager("READY=1");
    if (isDaemonChild()) {
      // The device must not vanish under a file system. Its memory counts like that of a tmpfs.
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

  /** The exit status of the command of `--run`; 0 without one. */
  exitStatus(): Promise<number> | number {
    return this.#command?.exited ?? 0;
  }

  async #receive(signal: StopSignal): Promise<void> {
    const path = this.#attachment?.path;
    if (path === undefined || this.#isStaying) return this.#stop(signal, undefined);
    const found = useOf(path) ?? this.#findHiddenUse(path);
    const use = typeof found === "object" ? await found : found;
    const mayOutlast = use !== undefined && !this.options.initrd && !this.#isEnding;
    if (!mayOutlast || !(await isSystemStopping())) return this.#stop(signal, use);
    await this.#outlast(path, use);
    if (!this.#isEnding) this.#stop(signal, undefined);
  }

  /** Checks once for simultaneous signals: each check claims the node for a moment, and would see the other. */
  #findHiddenUse(path: string): Promise<string | undefined> | undefined {
    const find = this.options.initrd ? claimedBy : this.#canLeave ? openedBy : undefined;
    this.#hiddenUse ??= find?.(path).finally(() => (this.#hiddenUse = undefined));
    return this.#hiddenUse;
  }

  /** Whether its users can wait for the next server. */
  get #canLeave(): boolean {
    return this.#attachment?.isRecoverable === true;
  }

  /** At shutdown file systems are unmounted, but not always before their servers are told to end. */
  async #outlast(path: string, use: string): Promise<void> {
    this.#isStaying = true;
    this.#endBySignal?.ignored();
    log.info(`${path} is ${use}, and the system shuts down: it is served until that ends`);
    while (!this.#isEnding && (await claimedBy(path)) !== undefined) await Bun.sleep(USE_POLL_MS);
    this.#isStaying = false;
  }

  #stop(signal: StopSignal, hiddenUse: string | undefined): void {
    const attachment = this.#attachment;
    const use = attachment === undefined ? undefined : (useOf(attachment.path) ?? hiddenUse);
    const reason = this.#reasonToStay(signal, use);
    if (reason !== undefined) {
      if (signal !== "SIGHUP") this.#endBySignal?.ignored();
      return log.info(`${signal} ignored: ${reason}`);
    }
    // Closing a terminal sends several SIGHUPs: from the shell, the kernel and the end of the session.
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
    if (use !== undefined && this.#canLeave) {
      log.warn(`${attachment.path} is ${use}: it waits for its next server`);
      return this.stop.leave();
    }
    if (use !== undefined)
      log.warn(`${attachment.path} is ${use}: it returns errors from now on; unmount or close it`);
    // Writing back opens the node by its path.
    if (isDaemonChild()) enterCurrentRoot();
    this.stop.begin();
  }

  /**
   * A daemon has no terminal to lose. A signal sent to all processes is not meant for the root file system's server.
   */
  #reasonToStay(signal: string, use: string | undefined): string | undefined {
    if (signal === "SIGHUP" && isDaemonChild()) return "SIGTERM ends a daemon";
    // Swapped pages would be lost, and with them their processes.
    const path = this.#attachment?.path;
    const held = this.options.swap && path !== undefined ? heldBy(path) : undefined;
    if (held !== undefined) return `${path} is ${held.how}: ${held.remedy}`;
    if (!this.options.initrd || use === undefined) return undefined;
    return `the device is ${use}; "tsbuse disconnect --force" takes it away all the same`;
  }
}
