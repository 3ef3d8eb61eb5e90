/** A layer that tells what is asked of a device. */
import { writeSync } from "node:fs";
import { errnoOf } from "../errors.ts";
import { close, open } from "../libc/file.ts";
import { errnoName } from "../uapi/errno.ts";
import { O_APPEND, O_CREAT, O_WRONLY } from "../uapi/fcntl.ts";
import { type Advice, around } from "./around.ts";
import { fileOption, openFailure } from "./files.ts";
import type { Layer } from "./layer.ts";
import type { NamedLayer } from "./options.ts";
import { timed } from "./timed.ts";

export interface LogOptions {
  /** The path of a file that lines are added to; it is made if need be. Default: `report`. */
  readonly file?: string | undefined;
  /** Takes the lines, without the end of line. Default: they go to stderr. */
  readonly report?: ((line: string) => void) | undefined;
}

/**
 * A line of JSON for each request, once it is done: `time` (when it came), `command`, `offset` and `length` in bytes,
 * `fua`, `duration` in microseconds, and `error`: null, or the errno's name.
 *
 * @throws UserError, when it is put on a device, if the file cannot be opened.
 */
export function logLayer(options: LogOptions = {}): Layer {
  return (device) => {
    if (options.file === undefined) {
      return around(device, logTo(options.report ?? ((line) => appendLine(2, line))));
    }
    const fd = openLog(options.file);
    return around(
      device,
      logTo((line) => appendLine(fd, line)),
      () => close(fd),
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

function openLog(path: string): number {
  const fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0o644);
  if (fd < 0) throw openFailure(path, fd);
  return fd;
}

/** A line that nobody can take, a full file system for example, is lost: it must not stop a device. */
function appendLine(fd: number, line: string): boolean {
  const bytes = Buffer.from(`${line}\n`);
  try {
    for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done);
    return true;
  } catch {
    return false;
  }
}

const OPTIONS = { file: fileOption("Add the lines to FILE (default stderr)") };

export const logNamed: NamedLayer = {
  name: "log",
  summary: "Print a line of JSON for each request",
  options: OPTIONS,
  sparesDevice: false,
  make: (given, { report }) => logLayer({ file: given(OPTIONS.file), report }),
};
