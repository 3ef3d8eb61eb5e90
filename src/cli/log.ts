/**
 * Where messages go: to stderr, a line each, so that stdout contains only results; in a daemon, to syslog. A device
 * never waits for a reader of messages: see MessageQueue.
 */
import { writeSync } from "node:fs";
import { createConsola, type LogObject, type LogType } from "consola/core";
import { close, open, write as writeFd } from "../libc/file.ts";
import { inCurrentRoot } from "../libc/root.ts";
import { sendDatagram } from "../libc/socket.ts";
import { LineOutput } from "../serving/line-output.ts";
import { MessageQueue } from "../serving/message-queue.ts";
import { errno } from "../uapi/errno.ts";
import { O_WRONLY } from "../uapi/fcntl.ts";

const PREFIXES: Partial<Record<LogType, string>> = { warn: "warning: ", debug: "", info: "" };

/** syslog(3): facility LOG_DAEMON, with the priority of the message's type. */
const LOG_DAEMON = 3 << 3;
const PRIORITIES: Partial<Record<LogType, number>> = { error: 3, warn: 4, info: 6, debug: 7 };

/** syslog's socket may take as few as ten messages at once (net.unix.max_dgram_qlen): more would take minutes. */
const SYSLOG_PENDING_MAX = 4096;

const NEWLINE = 0x0a;

/** How long to wait at the end for a reader that is behind, in milliseconds. */
const END_LIMIT_MS = 1000;

let stdout: LineOutput | undefined;
let stderr: LineOutput | undefined;
let syslog: MessageQueue | undefined;

/** Sends messages to syslog from now on, or to the kernel's log without syslog: a daemon has no terminal. */
export function logToSyslog(): void {
  stderr?.close();
  stderr = undefined;
  syslog = new MessageQueue(sendToSyslog, (lost) => syslogText("warn", lostText(lost)), SYSLOG_PENDING_MAX);
}

export const log = createConsola({
  level: 3,
  // A repeated line is news: it happened again. Throttling would also need timers to run.
  throttle: 0,
  reporters: [{ log: write }],
});

function write({ type, args }: LogObject): void {
  const text = `${PREFIXES[type] ?? ""}${args.join(" ")}`.replaceAll("\n", " ");
  if (syslog === undefined) writeError(`tsbuse: ${text}`);
  else syslog.push(syslogText(type, text));
}

function lostText(lost: number): string {
  return `${lost} ${lost === 1 ? "message was" : "messages were"} lost here: nobody read them in time`;
}

function syslogText(type: LogType, text: string): string {
  return `<${LOG_DAEMON | (PRIORITIES[type] ?? 6)}>tsbuse[${process.pid}]: ${text}`;
}

/** Writes a line to stderr unchanged. */
export function writeError(line: string): void {
  stderr ??= new LineOutput(2, (lost) => `tsbuse: ${lostText(lost)}`);
  stderr.write(line);
}

/** Returns the bytes taken, or -errno. An initramfs has no syslog, but the kernel's log can be read later. */
function sendToSyslog(message: Uint8Array): number {
  const sent = sendDatagram(inCurrentRoot("/dev/log"), message);
  return sent >= 0 || sent === -errno.EAGAIN ? sent : writeKernelLog(message);
}

/** As far as this process may. A line without its end would appear only with the next one. */
function writeKernelLog(message: Uint8Array): number {
  const fd = open(inCurrentRoot("/dev/kmsg"), O_WRONLY);
  if (fd < 0) return fd;
  const line = new Uint8Array(message.byteLength + 1);
  line.set(message);
  line[message.byteLength] = NEWLINE;
  const written = Math.min(writeFd(fd, line), message.byteLength);
  close(fd);
  return written;
}

/** Gives readers that are behind a moment at the end of the process. */
export async function finishLog(): Promise<void> {
  await Promise.all([stdout, stderr, syslog].map((output) => output?.finish(END_LIMIT_MS)));
}

/** Writes messages of layers unchanged, so that a line of JSON stays one. */
export function report(line: string): void {
  if (syslog === undefined) writeError(line);
  else log.info(line);
}

/** Writes a line to stdout while a device is served, without waiting for the reader. */
export function announce(line: string): void {
  stdout ??= new LineOutput(1, lostText);
  stdout.write(line);
}

/** Writes the result of a command to stdout. Returns the exit status: half a result is a failure. */
export function printResult(text: string): number {
  if (writeLine(1, text)) return 0;
  log.error("the standard output is closed or full: nobody took the whole result");
  return 1;
}

/** Waits for the reader. Only for commands that serve nothing. Returns false if there is no reader. */
export function writeLine(fd: number, line: string): boolean {
  const bytes = Buffer.from(`${line}\n`);
  try {
    for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done);
    return true;
  } catch {
    return false;
  }
}
