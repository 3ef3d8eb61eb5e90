/** The options that every device command has, beside its own. */
import { accessSync, constants, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { DEFAULT_BLOCK_SIZE } from "../device.ts";
import { UserError } from "../errors.ts";
import { parseCount, parsePositiveSize } from "./sizes.ts";
import { UsageError } from "./usage-error.ts";

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
    description: "Let the kernel give up on a request after so long (default 0: never)",
  },
  run: {
    type: "string",
    valueHint: "COMMAND",
    description: "Run a shell command with $TSBUSE_DEVICE set, detach after it, and exit with its status",
  },
  daemon: { type: "boolean", description: "Go to the background once the device can be used; log to syslog" },
  "pid-file": {
    type: "string",
    valueHint: "FILE",
    description: "Write the process ID to FILE once the device can be used; removed at the end",
  },
  verbose: { type: "boolean", alias: "v", description: "Print a line for each request" },
} as const;

/** The values of {@link SERVING_ARGS} as citty hands them over. */
interface RawServingArgs {
  readonly "read-only"?: boolean | undefined;
  readonly "block-size"?: string | undefined;
  readonly timeout?: string | undefined;
  readonly run?: string | undefined;
  readonly daemon?: boolean | undefined;
  readonly "pid-file"?: string | undefined;
  readonly verbose?: boolean | undefined;
}

export interface ServingOptions {
  readonly readOnly: boolean;
  readonly blockSize: number | undefined;
  /** What sizes must be multiples of: the block size asked for, or the default. */
  readonly sizeUnit: number;
  readonly timeoutSeconds: number | undefined;
  readonly run: string | undefined;
  readonly daemon: boolean;
  /** Absolute: a daemon's working directory is `/`. */
  readonly pidFile: string | undefined;
  readonly verbose: boolean;
}

/** A year: beyond it the driver's arithmetic in jiffies is not to be trusted. */
const TIMEOUT_MAX_SECONDS = 366 * 24 * 60 * 60;
const BLOCK_SIZES: ReadonlySet<number> = new Set([512, 1024, 2048, 4096]);

/** @throws UsageError when a value cannot be, UserError when the PID file cannot be written. */
export function servingOptions(args: RawServingArgs): ServingOptions {
  const { run, timeout, "block-size": blockSize, "pid-file": pidFile } = args;
  if (args.daemon === true && run !== undefined) {
    throw new UsageError("--daemon and --run exclude each other: leave out one");
  }
  const blockBytes = blockSize === undefined ? undefined : parseBlockSize(blockSize);
  return {
    readOnly: args["read-only"] === true,
    blockSize: blockBytes,
    sizeUnit: blockBytes ?? DEFAULT_BLOCK_SIZE,
    timeoutSeconds:
      timeout === undefined ? undefined : parseCount(timeout, "--timeout", 0, TIMEOUT_MAX_SECONDS),
    run,
    daemon: args.daemon === true,
    pidFile: pidFile === undefined ? undefined : checkPidFile(pidFile),
    verbose: args.verbose === true,
  };
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
