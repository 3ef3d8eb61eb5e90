/** The options that every device command has, beside its own. */
import { accessSync, constants, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { DEFAULT_BLOCK_SIZE } from "../../device.ts";
import { UserError } from "../../errors.ts";
import { UBLK_MAX_NR_QUEUES, UBLK_MAX_QUEUE_DEPTH } from "../../uapi/ublk_cmd.ts";
import { LAYER_ARG, type LayerStack, parseLayers } from "./layers.ts";
import { log, writeLine } from "../log.ts";
import { parseCount, parsePositiveSize } from "./values.ts";
import { UsageError } from "../usage-error.ts";

/** What every device command is told of its last argument. */
export const TARGET_DESCRIPTION =
  "/dev/ublkbN or /dev/nbdN, ublk or nbd for one that is free, auto for either, unix:PATH or tcp:HOST:PORT";
export const TARGET_ARG = { type: "positional", required: true, description: TARGET_DESCRIPTION } as const;

export const SERVING_ARGS = {
  "read-only": { type: "boolean", description: "Refuse every write" },
  "block-size": {
    type: "string",
    valueHint: "BYTES",
    description: "Smallest unit of I/O: 512, 1024, 2048 or 4096 (default 512)",
  },
  timeout: {
    type: "string",
    valueHint: "SECONDS",
    description: "Let the NBD driver give up on a request after so long (default 0: never)",
  },
  "request-timeout": {
    type: "string",
    valueHint: "SECONDS",
    description:
      "Answer a request with EIO that the device has not answered after so long (default 0: never)",
  },
  queues: {
    type: "string",
    valueHint: "N",
    description: "Threads that serve a ublk device, where it can be served by several (default 1)",
  },
  "queue-depth": {
    type: "string",
    valueHint: "N",
    description: "Requests in flight at once, in each queue (default 128)",
  },
  recover: {
    type: "boolean",
    description: 'Let a ublk device wait for "tsbuse recover" if this process is killed',
  },
  resume: {
    type: "boolean",
    description: 'Serve a ublk device whose server was killed: see "tsbuse recover"',
  },
  "busy-poll": {
    type: "string",
    valueHint: "MICROSECONDS",
    description:
      "Look for requests for so long before going to sleep, at the cost of a processor (default 0)",
  },
  "export-name": {
    type: "string",
    valueHint: "NAME",
    description: "Name of the export, where TARGET is a socket (default: the empty name)",
  },
  description: {
    type: "string",
    valueHint: "TEXT",
    description: "What clients are told about the export, where TARGET is a socket",
  },
  "max-part": {
    type: "string",
    valueHint: "N",
    description: "Partitions for each node, if this loads the nbd driver (default: the driver's)",
  },
  "nbds-max": {
    type: "string",
    valueHint: "N",
    description: "Nodes, if this loads the nbd driver (default: the driver's)",
  },
  run: {
    type: "string",
    valueHint: "COMMAND",
    description: "Run a shell command with $TSBUSE_DEVICE set, detach after it, and exit with its status",
  },
  daemon: { type: "boolean", description: "Go to the background once the device can be used; log to syslog" },
  initrd: {
    type: "boolean",
    description:
      "Be a daemon for the device of a root file system: shutdown spares it, signals do nothing while it is in use",
  },
  "pid-file": {
    type: "string",
    valueHint: "FILE",
    description: "Write the process ID to FILE once the device can be used; removed at the end",
  },
  layer: LAYER_ARG,
  verbose: { type: "boolean", alias: "v", description: "Print a line for each request" },
} as const;

/** The values of {@link SERVING_ARGS} as citty hands them over. */
interface RawServingArgs {
  readonly "read-only"?: boolean | undefined;
  readonly "block-size"?: string | undefined;
  readonly timeout?: string | undefined;
  readonly "request-timeout"?: string | undefined;
  readonly queues?: string | undefined;
  readonly "queue-depth"?: string | undefined;
  readonly recover?: boolean | undefined;
  readonly resume?: boolean | undefined;
  readonly "busy-poll"?: string | undefined;
  readonly "export-name"?: string | undefined;
  readonly description?: string | undefined;
  readonly "max-part"?: string | undefined;
  readonly "nbds-max"?: string | undefined;
  readonly run?: string | undefined;
  readonly daemon?: boolean | undefined;
  readonly initrd?: boolean | undefined;
  readonly "pid-file"?: string | undefined;
  readonly layer?: string | undefined;
  readonly verbose?: boolean | undefined;
}

export interface ServingOptions {
  readonly readOnly: boolean;
  readonly blockSize: number | undefined;
  /** What sizes must be multiples of: the block size asked for, or the default. */
  readonly sizeUnit: number;
  readonly timeoutSeconds: number | undefined;
  /** Undefined for never. */
  readonly requestTimeoutMs: number | undefined;
  readonly queues: number | undefined;
  readonly queueDepth: number | undefined;
  readonly recover: boolean;
  readonly resume: boolean;
  readonly busyPollMs: number;
  readonly exportName: string | undefined;
  readonly description: string | undefined;
  /** Parameters of the driver. */
  readonly maxPart: number | undefined;
  readonly nbdsMax: number | undefined;
  readonly run: string | undefined;
  readonly daemon: boolean;
  /** A daemon that is to outlive the initramfs it is started in. */
  readonly initrd: boolean;
  /** Absolute: a daemon's working directory is `/`. */
  readonly pidFile: string | undefined;
  readonly verbose: boolean;
  readonly layers: LayerStack;
  /** The device is only ever read: by --read-only, or since a layer keeps changes from it. */
  readonly deviceIsSpared: boolean;
}

/** A year: beyond it the driver's arithmetic in jiffies is not to be trusted. */
const TIMEOUT_MAX_SECONDS = 366 * 24 * 60 * 60;
/** A disk of the kernel's has 256 minor numbers at most, its own among them. */
const MAX_PART_MAX = 255;
/** All nodes and their partitions share 2^20 minor numbers. Without --max-part the driver gives each node 32. */
const MINORS = 2 ** 20;
const DEFAULT_MAX_PART = 31;
/** As long as the event loop goes without its turn. */
const BUSY_POLL_MAX_MICROSECONDS = 50_000;
const BLOCK_SIZES: ReadonlySet<number> = new Set([512, 1024, 2048, 4096]);

/** @throws UsageError when a value cannot be, UserError when the PID file cannot be written. */
export function servingOptions(args: RawServingArgs): ServingOptions {
  const {
    run,
    timeout,
    "request-timeout": requestTimeout,
    "busy-poll": busyPoll,
    "block-size": blockSize,
    "pid-file": pidFile,
  } = args;
  const initrd = args.initrd === true;
  const daemon = args.daemon === true || initrd;
  if (daemon && run !== undefined) {
    throw new UsageError(`--${initrd ? "initrd" : "daemon"} and --run exclude each other: leave out one`);
  }
  const layers = parseLayers(args.layer, daemon ? (line) => log.info(line) : printLine);
  const blockBytes = blockSize === undefined ? undefined : parseBlockSize(blockSize);
  return {
    readOnly: args["read-only"] === true,
    blockSize: blockBytes,
    sizeUnit: blockBytes ?? DEFAULT_BLOCK_SIZE,
    timeoutSeconds:
      timeout === undefined ? undefined : parseCount(timeout, "--timeout", 0, TIMEOUT_MAX_SECONDS),
    requestTimeoutMs:
      requestTimeout === undefined
        ? undefined
        : parseCount(requestTimeout, "--request-timeout", 0, TIMEOUT_MAX_SECONDS) * 1000 || undefined,
    queues:
      args.queues === undefined ? undefined : parseCount(args.queues, "--queues", 1, UBLK_MAX_NR_QUEUES),
    queueDepth:
      args["queue-depth"] === undefined
        ? undefined
        : parseCount(args["queue-depth"], "--queue-depth", 1, UBLK_MAX_QUEUE_DEPTH),
    recover: args.recover === true,
    resume: args.resume === true,
    busyPollMs:
      busyPoll === undefined ? 0 : parseCount(busyPoll, "--busy-poll", 0, BUSY_POLL_MAX_MICROSECONDS) / 1000,
    exportName: args["export-name"],
    description: args.description,
    ...driverOptions(args["max-part"], args["nbds-max"]),
    run,
    daemon,
    initrd,
    pidFile: pidFile === undefined ? undefined : checkPidFile(pidFile),
    verbose: args.verbose === true,
    layers,
    deviceIsSpared: args["read-only"] === true || layers.sparesDevice,
  };
}

function driverOptions(maxPartText: string | undefined, nbdsMaxText: string | undefined) {
  const maxPart =
    maxPartText === undefined ? undefined : parseCount(maxPartText, "--max-part", 0, MAX_PART_MAX);
  // The driver rounds up to a power of two.
  const minors = 2 ** (32 - Math.clz32(maxPart ?? DEFAULT_MAX_PART));
  const nbdsMax =
    nbdsMaxText === undefined ? undefined : parseCount(nbdsMaxText, "--nbds-max", 1, MINORS / minors);
  return { maxPart, nbdsMax };
}

function parseBlockSize(text: string): number {
  const bytes = parsePositiveSize(text, "--block-size");
  if (BLOCK_SIZES.has(bytes)) return bytes;
  throw new UsageError(`--block-size ${text} cannot be: give 512, 1024, 2048 or 4096`);
}

/** Finds out before anything is attached. */
function checkPidFile(path: string): string {
  const absolute = resolve(path);
  try {
    accessSync(dirname(absolute), constants.W_OK);
  } catch (error) {
    throw new UserError(`the PID file ${path} cannot be written: its directory is missing or not writable`, {
      cause: error,
    });
  }
  if (statSync(absolute, { throwIfNoEntry: false })?.isFile() === false) {
    throw new UserError(`the PID file ${path} exists and is not a regular file: choose another name`);
  }
  return absolute;
}

/** For what layers report: as it is, so that a line of JSON is one. */
function printLine(line: string): void {
  writeLine(2, line);
}
