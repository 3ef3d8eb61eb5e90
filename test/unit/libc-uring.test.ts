/** Goal: a ring works as documented on this machine's kernel. */
import { afterEach, describe, expect, test } from "bun:test";
import { ptr } from "bun:ffi";
import { writeFileSync } from "node:fs";
import { eventfd } from "../../src/libc/eventfd.ts";
import { close, open } from "../../src/libc/file.ts";
import { Ring } from "../../src/libc/uring.ts";
import { errno } from "../../src/uapi/errno.ts";
import { O_RDONLY } from "../../src/uapi/fcntl.ts";
import {
  IORING_OP_READ,
  IORING_SETUP_DEFER_TASKRUN,
  IORING_SETUP_SINGLE_ISSUER,
  IORING_SETUP_SQE128,
  io_uring_sqe,
} from "../../src/uapi/io_uring.ts";
import { TemporaryDirectory } from "../support/temporary.ts";

const rings: Ring[] = [];

afterEach(() => {
  for (const ring of rings.splice(0)) ring.close();
});

function makeRing(entries: number, flags = 0): Ring {
  const ring = new Ring(entries, flags);
  rings.push(ring);
  return ring;
}

/** Fills an entry by hand, byte by byte, with the layout of the header. */
function fillRead(ring: Ring, entry: number, fd: number, target: Uint8Array, offset: number): void {
  const bytes = ring.entryWords * 4;
  const view = new DataView(ring.words.buffer, entry * bytes, bytes);
  for (let at = 0; at < bytes; at += 1) view.setUint8(at, 0);
  view.setUint8(io_uring_sqe.opcode, IORING_OP_READ);
  view.setInt32(io_uring_sqe.fd, fd, true);
  view.setBigUint64(io_uring_sqe.off, BigInt(offset), true);
  view.setBigUint64(io_uring_sqe.addr, BigInt(ptr(target)), true);
  view.setUint32(io_uring_sqe.len, target.length, true);
  view.setUint32(io_uring_sqe.user_data, 100 + entry, true);
}

const FLAGS = [
  ["none", 0],
  ["SQE128", IORING_SETUP_SQE128],
  ["SINGLE_ISSUER and DEFER_TASKRUN", IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN],
] as const;

describe.each(FLAGS)("a ring with flags %s", (_, flags) => {
  test("reads pieces of a file into the places they were asked for, round after round", () => {
    using directory = new TemporaryDirectory();
    const file = directory.join("file");
    writeFileSync(
      file,
      Uint8Array.from({ length: 4096 }, (_byte, index) => index % 251),
    );
    const fd = open(file, O_RDONLY);
    const ring = makeRing(4, flags);
    const targets = [0, 1, 2, 3].map(() => new Uint8Array(new ArrayBuffer(16)));
    // More rounds than the rings have entries.
    for (let round = 0; round < 40; round += 1) {
      targets.forEach((target, entry) => {
        fillRead(ring, entry, fd, target, round * 64 + entry * 16);
        ring.push(entry);
      });
      expect(ring.enter(4)).toBe(4);
      expect(ring.ready).toBe(4);
      const seen = [0, 1, 2, 3].map((index) => {
        expect(ring.result(index)).toBe(16);
        return ring.userData(index);
      });
      expect(seen.toSorted()).toEqual([100, 101, 102, 103]);
      ring.consume(4);
      expect(ring.ready).toBe(0);
      targets.forEach((target, entry) => {
        const at = round * 64 + entry * 16;
        expect([...target]).toEqual(Array.from({ length: 16 }, (_byte, index) => (at + index) % 251));
      });
    }
    close(fd);
  });

  test("an error comes back as a negative errno", () => {
    const ring = makeRing(4, flags);
    fillRead(ring, 2, -1, new Uint8Array(new ArrayBuffer(16)), 0);
    ring.push(2);
    expect(ring.enter(1)).toBe(1);
    expect([ring.ready, ring.userData(0), ring.result(0)]).toEqual([1, 102, -errno.EBADF]);
  });
});

test("a completion wakes the event loop by an eventfd", async () => {
  const ring = makeRing(2);
  const wake = eventfd();
  ring.registerEventfd(wake);
  const reader = Bun.file(wake).stream().getReader();
  const woken = reader.read();
  fillRead(ring, 0, -1, new Uint8Array(new ArrayBuffer(16)), 0);
  ring.push(0);
  ring.enter(0);
  const { value } = await woken;
  expect(value && [...value]).toEqual([1, 0, 0, 0, 0, 0, 0, 0]);
  expect(ring.ready).toBe(1);
  await reader.cancel();
});

test("flags that the kernel does not know are an error, and no file descriptor is left", () => {
  expect(() => new Ring(4, 1 << 30)).toThrow("io_uring_setup: Invalid argument");
  expect(() => new Ring(0, 0)).toThrow("io_uring_setup: Invalid argument");
});

test("a closed ring leaves no file descriptor", () => {
  const before = makeRing(2).fd;
  rings.pop()?.close();
  const after = makeRing(2).fd;
  expect(after).toBe(before);
});
