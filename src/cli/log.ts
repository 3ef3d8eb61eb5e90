/** Where messages go: stderr, a line each, so that stdout carries results only; syslog in a daemon. */
import { writeSync } from "node:fs";
import { createConsola, type LogObject, type LogType } from "consola/core";
import { close, open } from "../libc/file.ts";
import { inCurrentRoot } from "../libc/root.ts";
import { sendDatagram } from "../libc/socket.ts";
import { O_WRONLY } from "../uapi/fcntl.ts";

const PREFIXES: Partial<Record<LogType, string>> = { warn: "warning: ", debug: "", info: "" };

/** syslog(3): facility LOG_DAEMON with the priority for the type of message. */
const LOG_DAEMON = 3 << 3;
const PRIORITIES: Partial<Record<LogType, number>> = { error: 3, warn: 4, info: 6, debug: 7 };

let toSyslog = false;

/** From now on messages go to syslog, or to the kernel's log where there is none: a daemon has no terminal. */
export function logToSyslog(): void {
  toSyslog = true;
}

export const log = createConsola({
  level: 3,
  // A repeated line is news: it says that the thing happened again. Throttling would also need timers to run.
  throttle: 0,
  reporters: [{ log: write }],
});

function write(entry: LogObject): void {
  const text = `${PREFIXES[entry.type] ?? ""}${entry.args.join(" ")}`.replaceAll("\n", " ");
  if (toSyslog) {
    const priority = LOG_DAEMON | (PRIORITIES[entry.type] ?? 6);
    const message = `<${priority}>tsbuse[${process.pid}]: ${text}`;
    // In an initramfs there is no syslog daemon, but the kernel's log is read by the one that comes.
    if (sendDatagram(inCurrentRoot("/dev/log"), message) < 0) writeKernelLog(message);
    return;
  }
  writeLine(2, `tsbuse: ${text}`);
}

/** A line to the kernel's log, if this process may write one. */
function writeKernelLog(message: string): void {
  const fd = open(inCurrentRoot("/dev/kmsg"), O_WRONLY);
  if (fd < 0) return;
  writeLine(fd, message);
  close(fd);
}

/**
 * Writes a line to a file descriptor, at once: the event loop may not get a turn soon. Returns false when nobody can
 * take it any more, a closed pipe or a full one; that must not stop a device.
 */
export function writeLine(fd: number, line: string): boolean {
  const bytes = Buffer.from(`${line}\n`);
  try {
    for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done);
    return true;
  } catch {
    return false;
  }
}

/** What layers have to say goes out as it is, so that a line of JSON is one. */
export function report(line: string): void {
  if (toSyslog) log.info(line);
  else writeLine(2, line);
}

/** Writes what a command was asked for to stdout. Returns the exit status: half a result is a failure. */
export function printResult(text: string): number {
  if (writeLine(1, text)) return 0;
  log.error("the standard output is closed or full: nobody took the whole result");
  return 1;
}
