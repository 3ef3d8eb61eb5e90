/** Listening sockets, and waiting for several at once. */
import { describe, expect, test } from "bun:test";
import { close } from "../../src/libc/file.ts";
import { accept, isAddress, listenTcp, listenUnix, localPort } from "../../src/libc/listen.ts";
import { PollTable } from "../../src/libc/poll.ts";
import { sendBytes, streamSocketPair, tryUnix } from "../../src/libc/socket.ts";
import { errno } from "../../src/uapi/errno.ts";
import { TemporaryDirectory } from "../support/temporary.ts";

const { EAGAIN, EADDRINUSE, ENOENT } = errno;
const EADDRNOTAVAIL = 99;
/** <poll.h> */
const POLLIN = 1;
const POLLOUT = 4;
const POLLHUP = 16;

describe("listening", () => {
  test("on a Unix socket: who connects is accepted once", () => {
    using directory = new TemporaryDirectory();
    const listener = listenUnix(directory.join("s"));
    expect(accept(listener)).toEqual({ fd: -EAGAIN, address: "" });
    const client = tryUnix(directory.join("s"));
    const { fd, address } = accept(listener);
    expect(fd).toBeGreaterThan(0);
    expect(address).toBe("");
    expect(accept(listener).fd).toBe(-EAGAIN);
    expect(listenUnix(directory.join("s"))).toBe(-EADDRINUSE);
    expect(listenUnix(directory.join("none/s"))).toBe(-ENOENT);
    expect([listener, client, fd].map(close)).toEqual([0, 0, 0]);
  });

  test.each(["127.0.0.1", "::1"])(
    "on TCP, %s: the port that was free is told, and who connects",
    async (host) => {
      const listener = listenTcp(host, 0);
      const port = localPort(listener);
      expect(port).toBeGreaterThan(1023);
      expect(listenTcp(host, port)).toBe(-EADDRINUSE);
      const client = await Bun.connect({ hostname: host, port, socket: { data: () => undefined } });
      const { fd, address } = accept(listener);
      expect(address).toBe(host);
      client.terminate();
      expect([close(fd), close(listener)]).toEqual([0, 0]);
    },
  );

  test("an address of another machine is not available", () => {
    expect(listenTcp("192.0.2.1", 0)).toBe(-EADDRNOTAVAIL);
  });

  test.each([
    ["127.0.0.1", true],
    ["::", true],
    ["fe80::1", true],
    ["localhost", false],
    ["127.0.0", false],
    ["1::2::3", false],
    ["", false],
  ])("%p is an address: %p", (text, is) => {
    expect(isAddress(text)).toBe(is);
  });
});

describe("poll", () => {
  test("finds what there is, passes over an entry of -1, and waits no longer than it is told", () => {
    const [one, other] = streamSocketPair();
    const table = new PollTable(3);
    table.push(-1, POLLIN);
    table.push(one, POLLIN);
    const started = performance.now();
    expect(table.wait(20)).toBe(0);
    expect(performance.now() - started).toBeGreaterThanOrEqual(19);
    sendBytes(other, new Uint8Array(1));
    expect(table.wait(1000)).toBe(1);
    expect([table.found(0), table.found(1)]).toEqual([0, POLLIN]);
    table.clear();
    table.push(one, POLLOUT);
    table.push(one, 0);
    expect(table.wait(1000)).toBe(1);
    expect([table.found(0), table.found(1)]).toEqual([POLLOUT, 0]);
    close(other);
    expect(table.wait(1000)).toBe(2);
    expect(table.found(1) & POLLHUP).toBe(POLLHUP);
    close(one);
  });
});
