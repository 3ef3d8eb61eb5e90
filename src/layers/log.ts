/** A layer that logs every request to a device. */
import { errnoOf } from "../errors.ts";
import { close, open } from "../libc/file.ts";
import { errnoName } from "../uapi/errno.ts";
import { LineOutput } from "../serving/line-output.ts";
import { O_APPEND, O_CREAT, O_NONBLOCK, O_WRONLY } from "../uapi/fcntl.ts";
import { type Advice, around } from "./around.ts";
import { fileOption, openFailure } from "./files.ts";
import type { Layer } from "./layer.ts";
import type { NamedLayer } from "./options.ts";
import { timed } from "./timed.ts";

const STDERR = 2;
/** How long to wait for a slow reader when the device is closed, in milliseconds. */
const END_LIMIT_MS = 1000;

export interface LogOptions {
  /** The path of a file to append to; it is created if necessary. Default: `report`. */
  readonly file?: string | undefined;
  /** Takes the lines, without the end of line. Default: they go to stderr. */
  readonly report?: ((line: string) => void) | undefined;
}

/**
 * A line of JSON for each request, once it is done: `time` (when it came), `command`, `offset` and `length` in bytes,
 * `fua`, `duration` in microseconds, and `error`: null, or the errno's name. No request waits for the reader: one that
 * is too slow finds `{"lost":N}` in place of N lines.
 *
 * @throws UserError, when it is put on a device, if the file cannot be opened.
 */
export function logLayer(options: LogOptions = {}): Layer {
  return (device) => {
    const { file, report } = options;
    if (report !== undefined && file === undefined) return around("log", device, logTo(report));
    const fd = file === undefined ? STDERR : openLog(file);
    const output = new LineOutput(fd, (lost) => JSON.stringify({ lost }));
    // A request may end later than this, when the file descriptor belongs to another file.
    let isOpen = true;
    const end = async (): Promise<void> => {
      isOpen = false;
      await output.finish(END_LIMIT_MS);
      if (fd !== STDERR) close(fd);
    };
    return around(
      "log",
      device,
      logTo((line) => {
        if (isOpen) output.write(line);
      }),
      end,
    );
  };
}

function logTo(write: (line: string) => void): Advice {
  return (request, proceed) => {
    const time = new Date().toISOString();
    return timed(proceed, (microseconds, failure) => {
      const duration = Math.round(microseconds * 10) / 10;
      const error = failure === undefined ? null : errnoName(errnoOf(failure.thrown));
      write(JSON.stringify({ time, ...request, duration, error }));
    });
  };
}

/** Opening a pipe without a reader would wait for one. */
function openLog(path: string): number {
  const fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK, 0o644);
  if (fd < 0) throw openFailure(path, fd);
  return fd;
}

const OPTIONS = { file: fileOption("Add the lines to FILE (default stderr)") };

export const logNamed: NamedLayer = {
  name: "log",
  summary: "Print a line of JSON for each request",
  options: OPTIONS,
  sparesDevice: false,
  make: (given, { report }) => logLayer({ file: given(OPTIONS.file), report }),
};
