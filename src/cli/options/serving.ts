/** The options that every device command has, in addition to its own. */
import { parseMetricsAddress } from "../../control/metrics-server.ts";
import type { ServerTarget } from "../../nbd/server/target.ts";
import { ATTACH_WAYS, type AttachWay } from "../../nbd/node/link.ts";
import type { ServeDeviceOptions } from "../../target/serve-device.ts";
import { UBLK_MAX_NR_QUEUES, UBLK_MAX_QUEUE_DEPTH } from "../../uapi/ublk_cmd.ts";
import { parsePidFile } from "../serving/pid-file.ts";
import { UsageError } from "../usage-error.ts";
import {
  anyText,
  type ArgumentsOf,
  flag,
  type Given,
  option,
  positional,
  type Values,
  valuesOf,
} from "./argument.ts";
import { LAYER } from "./layers.ts";
import { count, parseBlocks, parsePositiveSize } from "./values.ts";

/** A year: with more, the driver's arithmetic in jiffies is unreliable. */
const TIMEOUT_MAX_SECONDS = 366 * 24 * 60 * 60;
/** The kernel gives a disk at most 256 minor numbers, including its own. */
const MAX_PART_MAX = 255;
/** All nodes and their partitions share 2^20 minor numbers. Without --max-part the driver gives each node 32. */
const MINORS = 2 ** 20;
const DEFAULT_MAX_PART = 31;
/** The longest time that the event loop may be blocked. */
const BUSY_POLL_MAX_MICROSECONDS = 50_000;
const BLOCK_SIZES: ReadonlySet<number> = new Set([512, 1024, 2048, 4096]);

/** The help text of the last argument of every device command. */
export const TARGET = positional(
  "/dev/ublkbN or /dev/nbdN, ublk or nbd for a free node, auto for either, unix:PATH or tcp:HOST:PORT",
);

const BLOCK_SIZE = option({
  valueHint: "BYTES",
  description: "Smallest unit of I/O: 512, 1024, 2048 or 4096 (default 512)",
  parse: blockSize,
});

const MAX_PART = option({
  valueHint: "N",
  description: "Partitions for each node, if this loads the nbd driver (default: the driver's)",
  parse: count(0, MAX_PART_MAX),
});

/** Options that are passed to `serveDevice` unchanged, under the same names. */
const DEVICE_OPTIONS = {
  readOnly: flag("Refuse every write"),
  blockSize: BLOCK_SIZE,
  timeoutSeconds: option({
    name: "timeout",
    valueHint: "SECONDS",
    description: "How long the NBD driver waits for an answer before it gives up (default 0: forever)",
    parse: count(0, TIMEOUT_MAX_SECONDS),
  }),
  requestTimeoutMs: option({
    name: "request-timeout",
    valueHint: "SECONDS",
    description: "Answer with EIO if the device has not answered by then (default 0: never)",
    parse: (text, what) => count(0, TIMEOUT_MAX_SECONDS)(text, what) * 1000 || undefined,
  }),
  stopTimeoutMs: option({
    name: "stop-timeout",
    valueHint: "SECONDS",
    description:
      "Cut the device off, unwritten data included, if stopping takes longer; exit with 1 (default 0: no limit)",
    parse: (text, what) => count(0, TIMEOUT_MAX_SECONDS)(text, what) * 1000 || undefined,
  }),
  attach: option({
    valueHint: "WAY",
    words: ATTACH_WAYS,
    description:
      "How an NBD node is attached: netlink, ioctl, or auto for netlink where it is available (default auto)",
    parse: attachWay,
  }),
  queues: option({
    valueHint: "N",
    description: "Threads that serve a node, where several can reach the device (default 1)",
    parse: count(1, UBLK_MAX_NR_QUEUES),
  }),
  queueDepth: option({
    valueHint: "N",
    description: "Requests in flight at once, in each queue (default 128)",
    parse: count(1, UBLK_MAX_QUEUE_DEPTH),
  }),
  swap: flag("Make the device safe to hold swap: keep its server in memory; for loop --direct"),
  recover: flag("Let the device wait for another server if this process is killed; take it over if it waits"),
  handover: flag(
    'Let "tsbuse handover" take over a RAM disk, or cow in memory, with its data; if this process is killed, users of a ublk device wait until "tsbuse disconnect"',
  ),
  resume: flag('Serve a device whose server was killed: see "tsbuse recover"'),
  busyPollMs: option({
    name: "busy-poll",
    valueHint: "MICROSECONDS",
    description:
      "How long to look for the next request before sleeping (default: up to 50, as far as it pays; 0: not at all)",
    parse: (text, what) => count(0, BUSY_POLL_MAX_MICROSECONDS)(text, what) / 1000,
  }),
  exportName: option({
    valueHint: "NAME",
    description: "Name of the export, where TARGET is a socket (default: the empty name)",
    parse: anyText,
  }),
  description: option({
    valueHint: "TEXT",
    description: "What clients are told about the export, where TARGET is a socket",
    parse: anyText,
  }),
  metrics: option({
    valueHint: "ADDRESS",
    description:
      "Metrics for Prometheus, at http://ADDRESS/metrics: HOST:PORT, :PORT for this machine only, unix:PATH",
    parse: metricsAddress,
  }),
  maxPart: MAX_PART,
  nbdsMax: option({
    valueHint: "N",
    description: "Nodes, if this loads the nbd driver (default: the driver's)",
    parse: nodeCount,
  }),
} as const satisfies ArgumentsOf<ServeDeviceOptions>;

export const SERVING = {
  ...DEVICE_OPTIONS,
  takeOver: flag('Serve a device in place of the process that serves it: see "tsbuse handover"'),
  run: option({
    valueHint: "COMMAND",
    description: "Run a shell command with $TSBUSE_DEVICE set, detach after it, and exit with its status",
    parse: anyText,
  }),
  daemon: flag("Go to the background when the device is ready; log to syslog"),
  initrd: flag(
    "Be a daemon for the device of a root file system: shutdown spares it, and it ignores signals while in use",
  ),
  pidFile: option({
    valueHint: "FILE",
    description: "Write the process ID to FILE when the device is ready; remove it at the end",
    parse: parsePidFile,
  }),
  stack: LAYER,
  verbose: flag("Print a line for each request", { alias: "v" }),
} as const;

/** The groups in the help. Each option is in one group. */
export const SERVING_GROUPS = [
  ["Disk", ["readOnly", "blockSize", "stack", "swap"]],
  ["Queues", ["queues", "queueDepth", "busyPollMs"]],
  ["Server process", ["recover", "handover", "resume", "takeOver", "daemon", "initrd", "pidFile", "run"]],
  ["Time limits", ["requestTimeoutMs", "stopTimeoutMs", "timeoutSeconds"]],
  ["Monitoring", ["metrics", "verbose"]],
  ["NBD driver", ["attach", "maxPart", "nbdsMax"]],
  ["NBD server", ["exportName", "description"]],
] as const satisfies readonly (readonly [title: string, keys: readonly (keyof typeof SERVING)[]])[];

export type ServingOptions = Values<typeof SERVING>;

/** @throws UsageError if a value is invalid, UserError if the PID file cannot be written. */
export function servingOptions(given: Given): ServingOptions {
  const options = valuesOf(SERVING, given);
  const daemon = options.daemon || options.initrd;
  if (daemon && options.run !== undefined) {
    const name = options.initrd ? "initrd" : "daemon";
    throw new UsageError(`--${name} and --run exclude each other: leave out one`);
  }
  return { ...options, daemon };
}

/** Parses the size of a device: whole blocks of the requested size. */
export function blocks(text: string, what: string, given: Given): number {
  return parseBlocks(text, what, given(BLOCK_SIZE));
}

/** @throws UsageError */
function metricsAddress(text: string, what: string): ServerTarget {
  const address = parseMetricsAddress(text);
  if (address !== undefined) return address;
  throw new UsageError(`${what} "${text}" is not an address: give HOST:PORT, :PORT or unix:PATH`);
}

function attachWay(text: string, what: string): AttachWay {
  const way = ATTACH_WAYS.find((each) => each === text);
  if (way !== undefined) return way;
  throw new UsageError(`${what} "${text}" is invalid: give auto, netlink or ioctl`);
}

/** The parser of a block size. @throws UsageError */
export function blockSize(text: string, what: string): number {
  const bytes = parsePositiveSize(text, what);
  if (BLOCK_SIZES.has(bytes)) return bytes;
  throw new UsageError(`${what} ${text} is invalid: give 512, 1024, 2048 or 4096`);
}

/** The more partitions each node has, the fewer nodes there can be. */
function nodeCount(text: string, what: string, given: Given): number {
  // The driver rounds up to a power of two.
  const minors = 2 ** (32 - Math.clz32(given(MAX_PART) ?? DEFAULT_MAX_PART));
  return count(1, MINORS / minors)(text, what);
}
