/** The stream may be cut anywhere: requests in any pieces, replies sent in any pieces, and its end at any byte. */
import { describe, expect, spyOn, test } from "bun:test";
import { negativeErrno } from "../../../../src/libc/errno.ts";
import { libc } from "../../../../src/libc/library.ts";
import { pointer } from "../../../../src/libc/address.ts";
import { SendMessage } from "../../../../src/libc/socket.ts";
import * as nbd from "../../../support/golden.ts";
import { Peer } from "../../../support/peer.ts";
import { pattern, Random } from "../../../support/random.ts";
import { contents, fill, KINDS, Shadow } from "../../../support/shadow.ts";

const SIZE = 64 * 1024;
const DATA = pattern(SIZE);
const EINTR = 4;
const ECONNRESET = 104;

/** A write and a read of what it wrote: 28 + 512 + 28 bytes. */
const PAYLOAD = pattern(512, 3);
const PAIR: readonly nbd.Request[] = [
  { command: nbd.WRITE, cookie: 1n, offset: 1024, payload: PAYLOAD },
  { command: nbd.READ, cookie: 2n, offset: 1024, length: 512 },
];
const PAIR_BYTES = nbd.encodeAll(PAIR);
const PAIR_REPLIES = nbd.concatenate([
  nbd.hex("67446698 00000000 0000000000000001"),
  nbd.hex("67446698 00000000 0000000000000002"),
  PAYLOAD,
]);

/** sendmsg(2) that takes what `take` says of the first entry: how a full socket or a signal looks to the caller. */
function sendInPieces(take: (length: number) => number): Disposable {
  return spyOn(SendMessage.prototype, "send").mockImplementation(function partial(
    this: SendMessage,
    fd,
    first,
  ) {
    const length = take(this.table.length(first));
    if (length < 0) return length;
    return negativeErrno(libc.sendto(fd, pointer(this.table.address(first)), length, 0, null, 0));
  });
}

describe.each(KINDS)("a %s device", (_, make) => {
  test("requests fed byte by byte are answered alike, and not before their last byte", () => {
    using peer = new Peer(make(SIZE));
    const lengths: number[] = [];
    const received: Uint8Array[] = [];
    for (const byte of PAIR_BYTES) {
      peer.send(Uint8Array.of(byte));
      expect(peer.run()).toBe("turn");
      received.push(peer.received());
      lengths.push(received.at(-1)?.length ?? 0);
    }
    expect(nbd.concatenate(received)).toEqual(PAIR_REPLIES);
    expect(lengths[28 + 512 - 1]).toBe(16);
    expect(lengths.at(-1)).toBe(16 + 512);
    expect(lengths.filter((length) => length > 0)).toHaveLength(2);
  });

  test("a second write's payload is found behind the first, wherever the stream is cut", () => {
    const device = make(SIZE);
    using peer = new Peer(device);
    const writes: readonly nbd.Request[] = [
      { command: nbd.WRITE, cookie: 1n, offset: 0, payload: DATA.slice(0, 1024) },
      { command: nbd.WRITE, cookie: 2n, offset: 4096, payload: DATA.slice(4096, 5120) },
    ];
    const bytes = nbd.encodeAll(writes);
    const expected = new Uint8Array(SIZE);
    expected.set(DATA.subarray(0, 1024), 0);
    expected.set(DATA.subarray(4096, 5120), 4096);
    for (let at = 1; at < bytes.length; at += 1) {
      fill(device, new Uint8Array(SIZE));
      peer.send(bytes.subarray(0, at));
      peer.run();
      peer.send(bytes.subarray(at));
      peer.run();
      expect(nbd.decodeReplies(peer.received(), writes)).toHaveLength(2);
      expect(contents(device)).toEqual(expected);
    }
  });
});

describe("sending", () => {
  test.each(KINDS)("a %s device: replies that go out in random pieces are whole and in order", (_, make) => {
    const random = new Random(1);
    const device = make(SIZE);
    using peer = new Peer(device);
    fill(device, DATA);
    let calls = 0;
    using _spy = sendInPieces((length) => {
      calls += 1;
      return random.oneIn(5) ? -EINTR : 1 + random.below(length);
    });
    const requests = nbd.readsOf(60, 512);
    const replies = peer.exchange(requests);
    expect(replies.map((reply) => reply.cookie)).toEqual(requests.map((request) => request.cookie));
    expect(nbd.concatenate(replies.map((reply) => reply.payload))).toEqual(DATA.slice(0, 60 * 512));
    // One for the headers and one for the payloads would be at least 60.
    expect(calls).toBeGreaterThan(120);
  });

  test("a socket that fails breaks the connection and names the errno", () => {
    using peer = new Peer(new Shadow(SIZE));
    using _spy = sendInPieces(() => -ECONNRESET);
    peer.send(PAIR_BYTES);
    expect(peer.run()).toBe("broken");
    expect(peer.connection.fault).toBe("send failed with errno 104");
  });

  test("a peer that is gone before its replies are sent breaks the connection, not the process (SIGPIPE)", () => {
    using peer = new Peer(new Shadow(SIZE));
    peer.send(PAIR_BYTES);
    peer.hangUp();
    // A Unix socket that was shut down takes no more: EPIPE.
    expect(peer.run()).toBe("broken");
    expect(peer.connection.fault).toBe("send failed with errno 32");
  });
});
