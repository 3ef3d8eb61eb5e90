/** The shortest way into nbdkit's transmission phase, for a client that has none of its own. */
import { unwrap } from "../../src/libc/errno.ts";
import { close } from "../../src/libc/file.ts";
import { connectUnix } from "../../src/libc/socket.ts";
import { libc } from "../../src/libc/library.ts";

/** doc/proto.md, "Newstyle negotiation": what the server begins with, and NBD_OPT_EXPORT_NAME for the export "". */
const GREETING_BYTES = 8 + 8 + 2;
const CLIENT_FLAGS = [0, 0, 0, 0b11];
const IHAVEOPT = [0x49, 0x48, 0x41, 0x56, 0x45, 0x4f, 0x50, 0x54];
const OPT_EXPORT_NAME = [0, 0, 0, 1];
const NO_NAME = [0, 0, 0, 0];
/** Size and transmission flags; NBD_FLAG_C_NO_ZEROES leaves out the padding. */
const EXPORT_BYTES = 8 + 2;

/** Returns a socket in the transmission phase. @throws ErrnoError */
export function connectNbdkit(path: string): number {
  const fd = unwrap(connectUnix(path), `connect to ${path}`);
  expectBytes(fd, GREETING_BYTES);
  const option = new Uint8Array([...CLIENT_FLAGS, ...IHAVEOPT, ...OPT_EXPORT_NAME, ...NO_NAME]);
  if (Number(libc.sendto(fd, option, option.length, 0, null, 0)) !== option.length)
    throw new Error("send failed");
  expectBytes(fd, EXPORT_BYTES);
  return fd;
}

function expectBytes(fd: number, count: number): void {
  const bytes = new Uint8Array(new ArrayBuffer(count));
  for (let done = 0; done < count;) {
    const got = Number(libc.recv(fd, bytes.subarray(done), count - done, 0));
    if (got <= 0) {
      close(fd);
      throw new Error("the server ended the handshake");
    }
    done += got;
  }
}
