/** Ends a command whose device blocks the program: what signals do then, and the message. */
import { messageOf } from "../../errors.ts";
import { open } from "../../libc/file.ts";
import { LastResort } from "../../libc/last-resort.ts";
import { inCurrentRoot } from "../../libc/root.ts";
import { connectDatagram } from "../../libc/socket.ts";
import { O_WRONLY } from "../../uapi/fcntl.ts";
import { SIGINT, SIGTERM } from "../../uapi/signal.ts";
import { log } from "../log.ts";
import { isDaemonChild } from "./daemon.ts";

/** How long the program itself has after the device was cut off, in milliseconds. Then the kernel ends it. */
const LAST_MS = 950;
/** How long it has after a second signal once the device is closed: longer than the readers of its log have. */
const WAIT_MS = 2000;
/** syslog(3): LOG_DAEMON | LOG_ERR. */
const DAEMON_ERROR = 27;

export class EndBySignal {
  readonly #resort: LastResort;
  #hasSyslog = false;

  private constructor(stopTimeoutMs: number | undefined) {
    const firstMs = stopTimeoutMs === undefined ? undefined : stopTimeoutMs + LAST_MS;
    this.#resort = new LastResort([SIGINT, SIGTERM], firstMs, LAST_MS);
    this.#say("stopped before the device could be used");
  }

  /** Call once the runtime handles these signals. Returns undefined where the system does not allow it. */
  static make(stopTimeoutMs: number | undefined): EndBySignal | undefined {
    try {
      return new EndBySignal(stopTimeoutMs);
    } catch (error) {
      log.warn(`signals cannot end a device that holds the program up: ${messageOf(error)}`);
      return undefined;
    }
  }

  /** Call when the device can be used. In a daemon, call it after messages go to the log. */
  ready(path: string): void {
    const text = `${path} was cut off, since the program was held up: what was not written is lost`;
    this.#say(text);
    if (!isDaemonChild()) return;
    const syslog = connectDatagram(inCurrentRoot("/dev/log"));
    const fd = syslog >= 0 ? syslog : open(inCurrentRoot("/dev/kmsg"), O_WRONLY);
    if (fd < 0) return;
    this.#resort.fd = fd;
    this.#hasSyslog = true;
    this.#say(text);
  }

  /** Call when signals are ignored: cancels what they would bring about by themselves. */
  ignored(): void {
    this.#resort.forget();
  }

  /**
   * Call when the device is closed. The log and the command of `--run` may take more time. After a cut, the program has
   * only the time that is already running, whatever blocks it now.
   */
  over(wasCut: boolean): void {
    if (wasCut) return this.#say("ended before all messages were taken");
    this.#say("ended by a second signal, when the device had been put away");
    this.#resort.disarm(WAIT_MS);
  }

  #say(text: string): void {
    this.#resort.line = this.#hasSyslog
      ? `<${DAEMON_ERROR}>tsbuse[${process.pid}]: ${text}`
      : `tsbuse: ${text}`;
  }
}
