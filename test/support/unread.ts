/** Full pipes and sockets that nothing reads until the test does: for a process's stderr or stdout, or as a syslog. */
import { closeSync, constants, openSync, readSync, writeSync } from "node:fs";

import { unwrap } from "../../src/libc/errno.ts";
import { close } from "../../src/libc/file.ts";
import { libc } from "../../src/libc/library.ts";
import { receiveBytes, sendDatagram, unixAddress } from "../../src/libc/socket.ts";
import { AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM } from "../../src/uapi/socket.ts";

const { O_NONBLOCK, O_RDONLY, O_WRONLY } = constants;
const FILL = Buffer.alloc(4096, "x");

export class UnreadPipe implements Disposable {
  /** The end to write to: it blocks, like that of a shell's pipeline. */
  readonly fd: number;
  readonly #reader: number;

  /** @param path where to make it, by `mkfifo`, which every system has. */
  constructor(readonly path: string) {
    Bun.spawnSync(["mkfifo", path]);
    this.#reader = openSync(path, O_RDONLY | O_NONBLOCK);
    this.fd = openSync(path, O_WRONLY);
    const filler = openSync(path, O_WRONLY | O_NONBLOCK);
    // A pipe with less room than a page takes only a part.
    while (attempt(() => writeSync(filler, FILL))) continue;
    while (attempt(() => writeSync(filler, "x"))) continue;
    closeSync(filler);
  }

  /** Reads everything, and returns it without the filling. */
  read(): string {
    let text = "";
    const chunk = Buffer.alloc(65_536);
    attempt(() => {
      for (let count = -1; count !== 0;) {
        count = readSync(this.#reader, chunk);
        text += chunk.toString("utf8", 0, count);
      }
    });
    return text.replace(/^x+/, "");
  }

  [Symbol.dispose](): void {
    closeSync(this.fd);
    closeSync(this.#reader);
  }
}

/** A datagram socket, like that of syslog or of a service manager. */
export class UnreadSocket implements Disposable {
  readonly #fd: number;

  constructor(path: string) {
    this.#fd = unwrap(libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");
    const address = unixAddress(path);
    unwrap(libc.bind(this.#fd, address, address.byteLength), "bind");
    while (sendDatagram(path, Buffer.from("x")) > 0) continue;
  }

  /** Receives everything. Returns the datagrams, except those of the filling. */
  read(): string[] {
    const chunk = new Uint8Array(65_536);
    const got: string[] = [];
    for (let count = receiveBytes(this.#fd, chunk); count > 0; count = receiveBytes(this.#fd, chunk))
      got.push(Buffer.from(chunk.subarray(0, count)).toString());
    return got.filter((text) => text !== "x");
  }

  [Symbol.dispose](): void {
    close(this.#fd);
  }
}

/** Whether a call on a pipe succeeded: it throws if it would have to wait. */
function attempt(call: () => unknown): boolean {
  try {
    call();
    return true;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EAGAIN") return false;
    throw error;
  }
}
