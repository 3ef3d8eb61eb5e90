/** Malformed requests: each gets its error and the connection goes on, unless it is no request at all. */
import { describe, expect, test } from "bun:test";
import { Ramdisk } from "../../../../devices/ramdisk.ts";
import * as nbd from "../../../support/golden.ts";
import { Peer } from "../../../support/peer.ts";
import { pattern } from "../../../support/random.ts";
import { contents, fill, KINDS } from "../../../support/shadow.ts";

const SIZE = 64 * 1024;
const DATA = pattern(SIZE);
const MIB = 2 ** 20;
const { READ, WRITE, FLUSH, TRIM, WRITE_ZEROES, FUA, NO_HOLE, EINVAL, ENOSPC } = nbd;

/** Names for messages. */
const NAMES: Readonly<Record<number, string>> = {
  [READ]: "READ",
  [WRITE]: "WRITE",
  [FLUSH]: "FLUSH",
  [TRIM]: "TRIM",
  [WRITE_ZEROES]: "WRITE_ZEROES",
};

interface Bad {
  readonly why: string;
  readonly command: number;
  readonly flags?: number;
  readonly offset?: number | bigint;
  readonly length?: number;
  readonly error: number;
}

/** An invalid range for each command with a range; `error` applies to those that change data. */
function badRange(why: string, offset: number | bigint, length: number, error: number): Bad[] {
  return [READ, WRITE, TRIM, WRITE_ZEROES].map((command) => ({
    why,
    command,
    offset,
    length,
    error: command === READ ? EINVAL : error,
  }));
}

function badFlags(flags: number, commands: readonly number[]): Bad[] {
  const why = `flags 0x${flags.toString(16)}`;
  return commands.map((command) => ({ why, command, flags, length: 512, error: EINVAL }));
}

const ALL = [READ, WRITE, FLUSH, TRIM, WRITE_ZEROES];
const UNKNOWN = [5, 7, 8, 0xff, 0x100, 0xffff];
const BAD: readonly Bad[] = [
  ...UNKNOWN.map((command) => ({ why: "an unknown command", command, length: 512, error: EINVAL })),
  ...badFlags(1 << 2, ALL),
  ...badFlags(1 << 15, ALL),
  ...badFlags((1 << 14) | FUA, ALL),
  ...badFlags(NO_HOLE, [READ, WRITE, FLUSH, TRIM]),
  ...badFlags(NO_HOLE | FUA, [READ, WRITE, FLUSH, TRIM]),
  ...badRange("no length", 512, 0, EINVAL),
  ...badRange("no length, at the end", SIZE, 0, EINVAL),
  ...badRange("an offset that is no multiple of the block", 511, 512, EINVAL),
  ...badRange("a length that is no multiple of the block", 512, 513, EINVAL),
  ...badRange("a length of half a block", 512, 256, EINVAL),
  ...badRange("one block beyond the end", SIZE, 512, ENOSPC),
  ...badRange("across the end", SIZE - 512, 1024, ENOSPC),
  ...badRange("longer than the device", 0, SIZE + 512, ENOSPC),
  ...badRange("far beyond the end", 2 ** 40, 512, ENOSPC),
  ...badRange("at 2^53", 2n ** 53n, 512, ENOSPC),
  ...badRange("at 2^63, where a signed offset turns negative", 2n ** 63n, 512, ENOSPC),
  ...badRange("offset + length is 2^64", 2n ** 64n - 512n, 512, ENOSPC),
  ...badRange("offset + length wraps to within the device", 2n ** 64n - 512n, 4096, ENOSPC),
];

function requestOf({ command, flags = 0, offset = 0, length = 0 }: Bad): nbd.Request {
  const base = { command, flags, offset, cookie: 0xbadn };
  return command === WRITE ? { ...base, payload: new Uint8Array(length).fill(0xff) } : { ...base, length };
}

describe.each(KINDS)("a %s device", (_, make) => {
  test.each(BAD.map((bad) => [NAMES[bad.command] ?? `command ${bad.command}`, bad.why, bad] as const))(
    "%s: %s",
    (__, ___, bad) => {
      const device = make(SIZE);
      using peer = new Peer(device);
      fill(device, DATA);
      const read = { command: READ, offset: 512, length: 1024 };
      const replies = peer.exchange([{ ...read, cookie: 1n }, requestOf(bad), { ...read, cookie: 2n }]);
      const payload = DATA.slice(512, 1536);
      // The reads on both sides are whole: nothing too much was sent, nor too little taken off the stream.
      expect(replies).toEqual([
        { cookie: 1n, error: 0, payload },
        { cookie: 0xbadn, error: bad.error, payload: new Uint8Array() },
        { cookie: 2n, error: 0, payload },
      ]);
      expect(device.calls.filter((call) => !call.startsWith("read"))).toEqual([]);
      expect(contents(device)).toEqual(DATA);
    },
  );

  test("all of them in one send", () => {
    const device = make(SIZE);
    using peer = new Peer(device);
    fill(device, DATA);
    const requests = BAD.map((bad, index) => ({ ...requestOf(bad), cookie: BigInt(index) }));
    const replies = peer.exchange(requests);
    expect(replies.map((reply) => reply.error)).toEqual(BAD.map((bad) => bad.error));
    expect(contents(device)).toEqual(DATA);
  });

  test.each([
    ["a reply's", "67446698"],
    ["its bytes swapped", "13956025"],
    ["the structured request's of newer peers", "21e41c71"],
    ["none", "00000000"],
  ])("a magic number that is %s breaks the connection; what came before is answered", (__, magic) => {
    const device = make(SIZE);
    using peer = new Peer(device);
    fill(device, DATA);
    const good: readonly nbd.Request[] = [
      { command: READ, cookie: 1n, offset: 0, length: 512 },
      { command: FLUSH, cookie: 2n },
    ];
    const bad = nbd.hex(`${magic} 0000 0004 0000000000000003 0000000000000000 00000200`);
    peer.send(nbd.concatenate([nbd.encodeAll(good), bad]));
    expect(peer.run()).toBe("broken");
    expect(peer.connection.fault).toContain(`0x${Number.parseInt(magic, 16).toString(16)},`);
    expect(nbd.decodeReplies(peer.received(), good).map((reply) => reply.error)).toEqual([0, 0]);
    expect(contents(device)).toEqual(DATA);
  });
});

describe("blocks of 4096 bytes", () => {
  test.each(KINDS)("a %s device takes requests of whole blocks only", (_, make) => {
    using peer = new Peer(make(SIZE), { blockSize: 4096 });
    const replies = peer.exchange([
      { command: READ, cookie: 1n, offset: 4096, length: 4096 },
      { command: READ, cookie: 2n, offset: 512, length: 4096 },
      { command: READ, cookie: 3n, offset: 4096, length: 512 },
      { command: WRITE, cookie: 4n, offset: 2048, payload: DATA.slice(0, 4096) },
      { command: WRITE, cookie: 5n, offset: 0, payload: DATA.slice(0, 2048) },
      { command: TRIM, cookie: 6n, offset: 4096, length: 2048 },
      { command: WRITE_ZEROES, cookie: 7n, offset: SIZE - 4096, length: 4096 },
    ]);
    const errors = replies.map((reply) => reply.error);
    expect(errors).toEqual([0, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, 0]);
  });
});

describe("too long", () => {
  test.each([
    [32 * MIB + 512, "the first length that is"],
    [0xffff_fe00, "the longest of whole blocks"],
  ])("READ of %d bytes, %s: EINVAL and no payload", (length) => {
    using peer = new Peer(new Ramdisk(8 * 1024 * MIB));
    const replies = peer.exchange([
      { command: READ, cookie: 1n, offset: 0, length },
      { command: READ, cookie: 2n, offset: 0, length: 512 },
    ]);
    expect(replies).toEqual([
      { cookie: 1n, error: EINVAL, payload: new Uint8Array() },
      { cookie: 2n, error: 0, payload: new Uint8Array(512) },
    ]);
  });
});
