/**
 * An NBD client that does nothing but keep a number of requests in flight: what the native benchmark measures with.
 * It runs on a thread of its own and blocks in its socket.
 */
import { close } from "../../src/libc/file.ts";
import { Memory } from "../../src/libc/memory.ts";
import { receive } from "../../src/libc/socket.ts";
import { libc } from "../../src/libc/library.ts";
import { NBD_CMD_WRITE, NBD_REQUEST_MAGIC, nbd_reply, nbd_request } from "../../src/uapi/nbd.ts";
import { pointer } from "../../src/libc/address.ts";

declare const self: Worker;

export interface ClientRun {
  /** A connected stream socket in the transmission phase; the worker closes it. */
  readonly fd: number;
  readonly command: number;
  /** Bytes of each request. */
  readonly length: number;
  readonly depth: number;
  /** Requests to make. */
  readonly count: number;
  /** Bytes of the export. */
  readonly size: number;
}

/** Requests per second. */
export interface ClientResult {
  readonly iops: number;
}

self.addEventListener("message", (event: MessageEvent<ClientRun>) => {
  const run = event.data;
  const iops = measure(run);
  close(run.fd);
  self.postMessage({ iops } satisfies ClientResult);
});

function measure(run: ClientRun): number {
  const writing = run.command === NBD_CMD_WRITE;
  const requestBytes = nbd_request.size + (writing ? run.length : 0);
  const replyBytes = nbd_reply.size + (writing ? 0 : run.length);
  const memory = new Memory(run.depth * (requestBytes + replyBytes));
  const bytes = memory.bytes();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const repliesAt = run.depth * requestBytes;
  for (let i = 0; i < run.depth; i += 1) {
    view.setUint32(i * requestBytes + nbd_request.magic, NBD_REQUEST_MAGIC);
    view.setUint32(i * requestBytes + nbd_request.type, run.command);
    view.setUint32(i * requestBytes + nbd_request.len, run.length);
  }

  const blocks = run.size / run.length;
  let state = 1;
  let made = 0;
  const send = (count: number): void => {
    for (let i = 0; i < count; i += 1) {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      view.setUint32(i * requestBytes + nbd_request.from + 4, (state % blocks) * run.length);
    }
    sendAll(run.fd, memory.address, count * requestBytes);
    made += count;
  };

  const started = performance.now();
  send(Math.min(run.depth, run.count));
  let received = 0;
  let partial = 0;
  while (received < run.count) {
    const got = receive(run.fd, memory.address + repliesAt + partial, run.depth * replyBytes - partial);
    if (got <= 0) throw new Error(`the server ended with ${got}`);
    const whole = Math.floor((partial + got) / replyBytes);
    partial = (partial + got) % replyBytes;
    received += whole;
    send(Math.min(whole, run.count - made));
  }
  const seconds = (performance.now() - started) / 1000;
  memory.close();
  return run.count / seconds;
}

function sendAll(fd: number, address: number, length: number): void {
  for (let sent = 0; sent < length;) {
    const result = Number(libc.sendto(fd, pointer(address + sent), length - sent, 0, null, 0));
    if (result < 0) throw new Error("send failed");
    sent += result;
  }
}
