/** Sockets and threads, through the C library. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { dlopen, FFIType } from "bun:ffi";
import { close } from "../../src/libc/file.ts";
import { IovecTable } from "../../src/libc/iovec.ts";
import { libc } from "../../src/libc/library.ts";
import { Memory } from "../../src/libc/memory.ts";
import { setIoFlusher } from "../../src/libc/process.ts";
import * as socket from "../../src/libc/socket.ts";
import { errno } from "../../src/uapi/errno.ts";
import { CAP_SYS_RESOURCE, hasCapability } from "../support/privileges.ts";
import { pattern } from "../support/random.ts";
import { TemporaryDirectory } from "../support/temporary.ts";

const { EPERM, ENOENT, EINTR, EAGAIN, EPIPE } = errno;
const AF_UNIX = 1;
const SOCK_DGRAM = 2;

describe("a stream", () => {
  let [one, other] = [-1, -1];
  let memory: Memory;

  beforeEach(() => {
    [one, other] = socket.streamSocketPair();
    memory = new Memory(8192);
  });
  afterEach(() => {
    memory.close();
    expect([close(one), close(other)]).toEqual([0, 0]);
  });

  test("carries the entries of one table to those of another", () => {
    const bytes = pattern(600);
    memory.write(bytes, 0);
    const sources = new IovecTable(3);
    // The first entry is left out.
    sources.push(1, 1);
    sources.push(memory.address, 100);
    sources.push(memory.address + 100, 500);
    expect(new socket.SendMessage(sources).send(one, 1)).toBe(600);
    const targets = new IovecTable(2);
    targets.push(memory.address + 4096, 300);
    targets.push(memory.address + 5000, 2000);
    expect(new socket.ReceiveMessage(targets).receive(other)).toBe(600);
    const view = memory.bytes();
    expect(view.slice(4096, 4396)).toEqual(bytes.slice(0, 300));
    expect(view.slice(5000, 5300)).toEqual(bytes.slice(300));
  });

  test("is not waited for longer than its time-out", () => {
    expect(socket.setReceiveTimeout(one, 20)).toBe(0);
    const started = performance.now();
    let received = -EINTR;
    // What a ring of this thread has left to be done for it interrupts a call as well.
    while (received === -EINTR) received = socket.receive(one, memory.address, 512);
    expect(received).toBe(-EAGAIN);
    expect(performance.now() - started).toBeGreaterThanOrEqual(19);
  });

  test("that was shut down ends for both, without a SIGPIPE", () => {
    const table = new IovecTable(1);
    table.push(memory.address, 512);
    expect(socket.setSendBuffer(one, 65_536)).toBe(0);
    expect(socket.shutdown(other)).toBe(0);
    expect(socket.receive(one, memory.address, 512)).toBe(0);
    expect(socket.receive(other, memory.address, 512)).toBe(0);
    expect(new socket.SendMessage(table).send(one, 0)).toBe(-EPIPE);
  });
});

/** bind(2), which the project itself does not need; undefined if the C library is not glibc. */
function loadBind() {
  const { i32, ptr, u32 } = FFIType;
  try {
    return dlopen("libc.so.6", { bind: { args: [i32, ptr, u32], returns: i32 } }).symbols.bind;
  } catch {
    return undefined;
  }
}

const bind = loadBind();

/** A datagram socket with a name as in unix(7); an abstract one begins with NUL. */
function listen(name: string): number {
  const fd = libc.socket(AF_UNIX, SOCK_DGRAM, 0);
  const address = Uint8Array.of(AF_UNIX, 0, ...new TextEncoder().encode(name));
  expect(bind?.(fd, address, address.length)).toBe(0);
  return fd;
}

describe.skipIf(bind === undefined)("a datagram (skipped where the C library is not glibc)", () => {
  test.each(["path", "abstract"])("reaches the socket at its %s name", (kind) => {
    using directory = new TemporaryDirectory();
    const path = directory.join("socket");
    const fd = listen(kind === "path" ? path : `\0${path}`);
    const text = "READY=1\nSTATUS=fertig \u{1f600}";
    const bytes = Buffer.from(text);
    expect(socket.sendDatagram(kind === "path" ? path : `@${path}`, Buffer.from(text))).toBe(bytes.length);
    const memory = new Memory(4096);
    expect(socket.receive(fd, memory.address, 4096)).toBe(bytes.length);
    expect(Buffer.from(memory.bytes().slice(0, bytes.length)).toString()).toBe(text);
    memory.close();
    close(fd);
  });

  test("to nobody is -ENOENT", () => {
    using directory = new TemporaryDirectory();
    expect(socket.sendDatagram(directory.join("socket"), Buffer.from("READY=1"))).toBe(-ENOENT);
  });
});

describe("threads", () => {
  test("all signals of a thread that blocks them are blocked, and the main thread's are not", async () => {
    const worker = new Worker(new URL("../support/signals.worker.ts", import.meta.url));
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    worker.addEventListener("message", (event) => resolve(event.data));
    worker.addEventListener("error", (event) => reject(new Error(event.message)));
    // All but SIGKILL (9), SIGSTOP (19) and the two that the C library keeps to itself (32, 33).
    const within = expect.stringMatching(/^fffffff[ce]7ffbfeff$/);
    const others = expect.not.stringMatching(/^f/);
    expect(await promise).toEqual({ before: others, within, after: others });
    worker.unref();
  });

  test("a thread may say that block I/O depends on it, with CAP_SYS_RESOURCE", () => {
    const expected = hasCapability(CAP_SYS_RESOURCE) ? 0 : -EPERM;
    expect([setIoFlusher(true), setIoFlusher(false)]).toEqual([expected, expected]);
  });
});
