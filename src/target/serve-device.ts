/** Puts a device on a target and serves it there: the way from a BlockDevice to a transport. */
import type { Subject } from "../control/commands.ts";
import { MetricsServer } from "../control/metrics-server.ts";
import { ControlServer } from "../control/server.ts";
import type { BlockDevice } from "../device.ts";
import { Dispatch } from "../dispatch.ts";
import { messageOf, UserError } from "../errors.ts";
import { errorText } from "../libc/errno.ts";
import { canUseThreads } from "../queues/count.ts";
import { setIoFlusher } from "../libc/process.ts";
import { attachNode, type NodeOptions } from "../nbd/node/attach-node.ts";
import { waitingNode } from "../nbd/node/take-over.ts";
import type { ServerOptions } from "../nbd/server/limits.ts";
import { NbdServer } from "../nbd/server/server.ts";
import { isServerTarget, parseServerTarget, type ServerTarget } from "../nbd/server/target.ts";
import { shieldedLog, shieldedTrace } from "./callbacks.ts";
import { chooseNode } from "./node-target.ts";
import { Stop, type StopOptions } from "../serving/stop.ts";
import type { Transport } from "../transport.ts";
import { UblkAttachment } from "../ublk/attachment.ts";
import type { UblkOptions } from "../ublk/options.ts";

/** Options of all transports; each ignores those that it does not use. */
export interface ServeDeviceOptions extends NodeOptions, ServerOptions, UblkOptions, StopOptions {
  readonly readOnly?: boolean | undefined;
  /** Bytes; at least the device's own block size. */
  readonly blockSize?: number | undefined;
  /** The path of the module that the device comes from. */
  readonly origin?: string | undefined;
  /** What other commands learn about the device while it is in use: see control/server.ts. Absent: nothing. */
  readonly control?:
    | Pick<Subject, "words" | "version" | "runsCommand" | "heirloom" | "layers" | "onHandedOn">
    | undefined;
  /** Where to serve the metrics over HTTP: see control/metrics-server.ts. */
  readonly metrics?: ServerTarget | undefined;
  /** Called once, when the device can be used at `transport.path`. */
  readonly onReady: (transport: Transport) => void;
}

/**
 * Serves the device until it is detached. The event loop stays free, unless the caller says that the thread has nothing
 * else to do (`ownsThread`). The device is closed in any case, even if it could not be attached.
 *
 * @param target a node, see node-target.ts, or where a server listens, see nbd/server/target.ts.
 * @param stop ends it, at any time.
 * @throws UserError if it cannot be attached, was cut off, or some data was not written.
 */
export async function serveDevice(
  device: BlockDevice,
  target: string,
  options: ServeDeviceOptions,
  stop = new Stop(target, { ...options, log: shieldedLog(options.log) }),
): Promise<void> {
  const log = shieldedLog(options.log);
  const shielded = { ...options, log, trace: shieldedTrace(options.trace, log) };
  await stop.run(serveAndClose(device, target, shielded, stop));
}

async function serveAndClose(
  device: BlockDevice,
  target: string,
  options: ServeDeviceOptions,
  stop: Stop,
): Promise<void> {
  const failures: unknown[] = [];
  const failed = (error: unknown): unknown => failures.push(error);
  await serveOn(device, target, options, stop).catch(failed);
  await stop.close(device, failures[0]).catch(failed);
  const first = stop.reason ?? failures[0];
  if (first === undefined) return;
  for (const other of failures) if (other !== first) options.log?.(messageOf(other));
  throw first;
}

async function serveOn(
  device: BlockDevice,
  target: string,
  options: ServeDeviceOptions,
  stop: Stop,
): Promise<void> {
  const { takeOver, metrics: address } = options;
  const mayWait = takeOver !== undefined;
  using metrics = address && (await MetricsServer.listen(address, mayWait, options.log));
  if (takeOver === undefined) await device.prepare?.();
  const dispatch = new Dispatch(device, options);
  const claim = takeOver && {
    hasData: takeOver.hasData,
    identity: takeOver.identity,
    descriptor: (name: string) => takeOver.descriptor(name),
    done: () => takeOver.done(),
    async release() {
      const isWhole = await takeOver.release();
      // The other process has closed by now what `prepare` opens.
      await device.prepare?.();
      return isWhole;
    },
  };
  const transport = await open(dispatch, target, { ...options, takeOver: claim });
  stop.attached(transport);
  let control: ControlServer | undefined;
  const onReady = (): void => {
    if (stop.reason !== undefined) return;
    stop.ready();
    if (options.control !== undefined) {
      const subject = { ...options.control, transport, dispatch, stop };
      control = ControlServer.open(subject, options.log);
      metrics?.serve(subject);
    }
    options.onReady(transport);
  };
  await transport.serve(onReady, stop).finally(() => control?.close());
  if (!stop.wasReady) throw new UserError(`${transport.path} was disconnected before it could be used`);
}

async function open(dispatch: Dispatch, target: string, options: ServeDeviceOptions): Promise<Transport> {
  if (isServerTarget(target)) {
    refuseOnSocket(options);
    return new NbdServer(parseServerTarget(target), dispatch, options);
  }
  if (dispatch.identity === undefined) refuseRecovery(target, options);
  const waiting = target === "auto" && options.recover === true && waitingNode(dispatch.identity ?? "");
  const node = await chooseNode(waiting ? `/dev/${waiting}` : target, options);
  const flusher = setIoFlusher(true);
  if (flusher < 0) {
    options.log?.(
      `memory may be reclaimed through the device itself: prctl(PR_SET_IO_FLUSHER): ${errorText(-flusher)}`,
    );
  }
  if (node.driver === "nbd") {
    const canBeShared = options.control?.heirloom?.isData;
    return attachNode(node.target, dispatch, { ...options, canBeShared });
  }
  if ((options.timeoutSeconds ?? 0) > 0)
    options.log?.("a ublk device knows no time-out of the kernel's: the time-out of requests does the same");
  if (options.control?.heirloom?.isData === true && !canUseThreads(dispatch, options))
    throw new UserError(
      "on ublk, data in memory is handed over if a thread of its own can serve the device: a RAM disk, or cow over a file or RAM disk; give /dev/nbd0, or leave out other layers and --verbose",
    );
  return new UblkAttachment(node.id, dispatch, options);
}

/** @throws UserError for options that only a node has. */
function refuseOnSocket(options: ServeDeviceOptions): void {
  const what = nodeOption(options);
  if (what !== undefined) throw new UserError(`${what} needs a node: give /dev/ublkb0, /dev/nbd0, or "auto"`);
}

function nodeOption(options: ServeDeviceOptions): string | undefined {
  const { recover, resume, takeOver, handover, queues = 1 } = options;
  if (recover === true) return "recovery";
  if (takeOver !== undefined || handover === true) return "a handover";
  if (resume === true) return "resuming";
  return queues > 1 ? "more than one queue" : undefined;
}

/** Refuses a device without an identity: its data would be lost with its server. @throws UserError */
function refuseRecovery(target: string, { recover, resume, takeOver }: ServeDeviceOptions): void {
  const own = 'give it an "identity" if it is your own and keeps its data elsewhere';
  if (resume === true || takeOver?.hasData === false)
    throw new UserError(`this device cannot take ${target} over, it begins without its data: ${own}`);
  if (recover === true)
    throw new UserError(
      `this device cannot be recovered, its data is lost with its server: leave out --recover, or ${own}`,
    );
}
