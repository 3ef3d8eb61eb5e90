/**
 * The owner of a node that was attached by netlink: the backend identifier, which the driver keeps with the node, shows
 * as /sys/block/nbdN/backend since Linux 5.14, and compares when another server takes over. One line of text:
 *
 *     tsbuse pid=1234 start=567890            ends with the process that attached it
 *     tsbuse recover loop:254:1/1234/…        waits for another server of the same device
 *
 * The process is that of /sys/block/nbdN/pid. `pid` is its ID in its own PID namespace, and only informs people.
 * `start` is the start of that thread, in clock ticks after boot (proc_pid_stat(5)), because the ID alone may belong to
 * another process by now. A node that waits for another server cannot name one, because the text never changes.
 */
import { createHash } from "node:crypto";
import { readAttribute } from "../../libc/sysfs.ts";

/** Half of the driver's page in sysfs, in bytes: the driver does not check that the text fits. */
const IDENTITY_BYTES_MAX = 2048;

export type Backend =
  | { readonly kind: "process"; readonly start: number }
  | { readonly kind: "recoverable"; readonly identity: string };

/** The identifier of a node that ends with the calling thread. */
export function ownBackend(): string {
  return `tsbuse pid=${process.pid} start=${startOf("thread-self") ?? 0}`;
}

/** The identifier of a node that outlives its server. @param identity see identity.ts. */
export function recoverableBackend(identity: string): string {
  return `tsbuse recover ${shortened(identity)}`;
}

/** Undefined if the node is not ours, was not attached by netlink, or the kernel does not say. */
export function backendOf(name: string): Backend | undefined {
  return parseBackend(backendText(name) ?? "");
}

/** The identifier of any program. Undefined if there is none, as after attaching by ioctl. */
export function backendText(name: string): string | undefined {
  return readAttribute(`/sys/block/${name}/backend`);
}

export function parseBackend(text: string): Backend | undefined {
  const [, identity] = /^tsbuse recover (.+)$/.exec(text) ?? [];
  if (identity !== undefined) return { kind: "recoverable", identity };
  const [, start] = /^tsbuse pid=\d+ start=(\d+)$/.exec(text) ?? [];
  return start === undefined ? undefined : { kind: "process", start: Number(start) };
}

/** The start of a thread, in clock ticks after boot; undefined if it has ended. @param thread its name in /proc. */
export function startOf(thread: number | string): number | undefined {
  // The second field is a name in parentheses, which may contain anything.
  const fields = readAttribute(`/proc/${thread}/stat`)?.split(") ").at(-1)?.split(" ");
  return fields?.[19] === undefined ? undefined : Number(fields[19]);
}

function shortened(identity: string): string {
  const bytes = new TextEncoder().encode(identity);
  if (bytes.length <= IDENTITY_BYTES_MAX) return identity;
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}
