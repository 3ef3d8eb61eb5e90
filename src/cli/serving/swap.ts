/**
 * `--swap`: the server of a device that holds swap. When memory is short the system waits for it, so it must not wait
 * for memory itself. It allocates all its memory at the start and keeps it, and the kernel does not kill it.
 */
import { errorText } from "../../libc/errno.ts";
import { UserError } from "../../errors.ts";
import { avoidOutOfMemoryKiller, isIoFlusher, setUrgent } from "../../libc/process.ts";
import { lockWhatIsTouched, touchCode } from "../../libc/resident.ts";
import { isServerTarget } from "../../nbd/server/target.ts";
import { errno } from "../../uapi/errno.ts";
import type { ServingOptions } from "../options/serving.ts";

/** A reserve for the unforeseen: memory that is freed stays with a process whose pages are locked. */
const RESERVE_BYTES = 16 * 2 ** 20;

/**
 * Call before the device is attached.
 * @param whyNot why the device itself cannot hold swap; undefined if it can.
 * @throws UserError if it cannot hold swap.
 */
export function becomeSwapServer(target: string, options: ServingOptions, whyNot: string | undefined): void {
  const obstacle = whyNoSwap(target, options) ?? whyNot;
  if (obstacle !== undefined) throw new UserError(`${target} cannot hold swap: ${obstacle}`);
  if (isIoFlusher() !== 1 || !avoidOutOfMemoryKiller())
    throw new UserError("--swap needs root: run it with sudo (capability CAP_SYS_RESOURCE)");
  const locked = lockWhatIsTouched();
  if (locked < 0) throw new UserError(whyNotLocked(-locked));
  touchCode();
  // The kernel allocates memory for a request on behalf of our thread, and may have none left for other threads.
  if (setUrgent(true) < 0)
    throw new UserError("--swap needs root: run it with sudo (capability CAP_SYS_NICE)");
  // The runtime collects this some time; the pages stay with the process.
  new Uint8Array(RESERVE_BYTES).fill(1);
}

/** Reasons that do not depend on the device. */
function whyNoSwap(target: string, options: ServingOptions): string | undefined {
  if (isServerTarget(target)) return "a client has its own memory: give a node, such as /dev/ublkb0";
  if (options.readOnly) return "it is read-only: leave out --read-only";
  if (options.stack.layers.length > 0) return "a layer takes memory for what it does: leave out --layer";
  if (options.verbose) return "each line of the log takes memory: leave out --verbose";
  return undefined;
}

function whyNotLocked(number: number): string {
  if (number === errno.EPERM)
    return "memory cannot be locked: run it as root of the host (capability CAP_IPC_LOCK)";
  if (number === errno.ENOMEM) return 'memory cannot be locked: see "ulimit -l"';
  return `memory cannot be locked: ${errorText(number)}`;
}
