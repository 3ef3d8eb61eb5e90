/** The end of a command whose device holds the program up: what signals do then, and what is said. */
import { messageOf } from "../../errors.ts";
import { open } from "../../libc/file.ts";
import { LastResort } from "../../libc/last-resort.ts";
import { inCurrentRoot } from "../../libc/root.ts";
import { connectDatagram } from "../../libc/socket.ts";
import { O_WRONLY } from "../../uapi/fcntl.ts";
import { SIGINT, SIGTERM } from "../../uapi/signal.ts";
import { log } from "../log.ts";
import { isDaemonChild } from "./daemon.ts";

/** How long the program itself gets once it is cut off, in milliseconds; then the kernel ends it. */
const LAST_MS = 950;
/** syslog(3): LOG_DAEMON | LOG_ERR. */
const DAEMON_ERROR = 27;

export class EndBySignal {
  readonly #resort: LastResort;

  private constructor(stopTimeoutMs: number | undefined) {
    const firstMs = stopTimeoutMs === undefined ? undefined : stopTimeoutMs + LAST_MS;
    this.#resort = new LastResort([SIGINT, SIGTERM], firstMs, LAST_MS);
    this.#resort.line = "tsbuse: stopped before the device could be used";
  }

  /** Once the runtime has handlers for these signals. Returns undefined where the system does not allow it. */
  static make(stopTimeoutMs: number | undefined): EndBySignal | undefined {
    try {
      return new EndBySignal(stopTimeoutMs);
    } catch (error) {
      log.warn(`signals cannot end a device that holds the program up: ${messageOf(error)}`);
      return undefined;
    }
  }

  /** The device can be used. In a daemon this comes after its messages go to the log. */
  ready(path: string): void {
    const text = `${path} was cut off, since the program was held up: what was not written is lost`;
    this.#resort.line = `tsbuse: ${text}`;
    if (!isDaemonChild()) return;
    const syslog = connectDatagram(inCurrentRoot("/dev/log"));
    const fd = syslog >= 0 ? syslog : open(inCurrentRoot("/dev/kmsg"), O_WRONLY);
    if (fd < 0) return;
    this.#resort.fd = fd;
    this.#resort.line = `<${DAEMON_ERROR}>tsbuse[${process.pid}]: ${text}`;
  }
}
