/** Goal: replies are understood in whatever pieces they arrive, and a server that lies is noticed. */
import { describe, expect, test } from "bun:test";
import type { Extent } from "../../../../src/device.ts";
import { wholeBlocks } from "../../../../src/nbd/client/extents.ts";
import { ProtocolError, ReplyReader } from "../../../../src/nbd/client/reply-reader.ts";
import { ClientRequest } from "../../../../src/nbd/client/request.ts";
import { anySeed } from "../../../../src/values/random.ts";
import { concatenate } from "../../../support/golden.ts";
import { number } from "../../../support/golden-handshake.ts";
import { Random } from "../../../support/random.ts";

const READ = 0;
const WRITE = 1;
const BLOCK_STATUS = 7;
const OFFSET = 2 ** 33 + 512;
const DONE = 1;

const big = (value: number): Uint8Array =>
  concatenate([number(Math.floor(value / 2 ** 32), 4), number(value % 2 ** 32, 4)]);

const simple = (cookie: number, error = 0, data = new Uint8Array()): Uint8Array =>
  concatenate([number(0x67446698, 4), number(error, 4), big(cookie), data]);

function chunk(cookie: number, flags: number, type: number, ...data: readonly Uint8Array[]): Uint8Array {
  const whole = concatenate(data);
  const header = [
    number(0x668e33ef, 4),
    number(flags, 2),
    number(type, 2),
    big(cookie),
    number(whole.length, 4),
  ];
  return concatenate([...header, whole]);
}

const data = (at: number, length: number, byte: number, flags = 0): Uint8Array =>
  chunk(0, flags, 1, big(OFFSET + at), new Uint8Array(length).fill(byte));
const hole = (at: number, length: number, flags = 0): Uint8Array =>
  chunk(0, flags, 2, big(OFFSET + at), number(length, 4));
const error = (errno: number, text: string, flags = DONE, type = 2 ** 15 + 1): Uint8Array => {
  const message = new TextEncoder().encode(text);
  return chunk(0, flags, type, number(errno, 4), number(message.length, 2), message);
};
const extents = (...words: readonly number[]): Uint8Array =>
  chunk(0, DONE, 5, number(7, 4), ...words.map((word) => number(word, 4)));

const textOf = (extent: Extent): string =>
  `${extent.length}${extent.hole ? "h" : ""}${extent.zero ? "z" : ""}`;

interface Outcome {
  readonly error: number;
  readonly text: string;
  readonly bytes: readonly number[];
  readonly extents: readonly string[];
}

/** The result of a request of a few bytes. @throws whatever the reader throws. */
function receive(command: number, bytes: Uint8Array, pieces: number): Outcome | undefined {
  const request = new ClientRequest(0);
  request.command = command;
  request.offset = OFFSET;
  request.length = 8;
  request.buffer = new Uint8Array(8).fill(0xee);
  let outcome: Outcome | undefined;
  const reader = new ReplyReader({
    find: (cookie, serial) => (cookie === 0 && serial === 0 && outcome === undefined ? request : undefined),
    done: () => {
      outcome = {
        error: request.error,
        text: request.errorText,
        bytes: [...(request.buffer ?? [])],
        extents: request.extents.map(textOf),
      };
    },
  });
  for (let at = 0; at < bytes.length; at += pieces) reader.push(bytes.subarray(at, at + pieces));
  return outcome;
}

const SEVEN = [7, 7, 7, 7, 7, 7, 7, 7];

describe.each([1, 3, 21, 1000])("in pieces of %d bytes", (pieces) => {
  test.each<[string, number, Uint8Array, Partial<Outcome>]>([
    ["a write", WRITE, simple(0), { error: 0 }],
    ["a write that fails", WRITE, simple(0, 28), { error: 28 }],
    ["a read", READ, simple(0, 0, new Uint8Array(8).fill(7)), { error: 0, bytes: SEVEN }],
    ["a read that fails", READ, simple(0, 5), { error: 5 }],
    ["a read of one part", READ, data(0, 8, 7, DONE), { error: 0, bytes: SEVEN }],
    [
      "a read of parts in any order, and a hole",
      READ,
      concatenate([data(6, 2, 3), hole(2, 4), data(0, 2, 1), chunk(0, DONE, 0)]),
      { error: 0, bytes: [1, 1, 0, 0, 0, 0, 3, 3] },
    ],
    [
      "a read that ends with a hole",
      READ,
      concatenate([data(0, 4, 7), hole(4, 4, DONE)]),
      { bytes: [7, 7, 7, 7, 0, 0, 0, 0] },
    ],
    [
      "a part of a read that fails",
      READ,
      concatenate([data(0, 4, 7), error(5, "bad disk")]),
      { error: 5, text: "bad disk" },
    ],
    [
      "an error before the end",
      READ,
      concatenate([error(5, "x", 0, 2 ** 15 + 2), chunk(0, DONE, 0)]),
      { error: 5, text: "x" },
    ],
    ["an error that is none", WRITE, error(0, "no\nerror"), { error: 5, text: "no error" }],
    ["an error of a kind to come", WRITE, error(22, "x", DONE, 2 ** 15 + 99), { error: 22, text: "" }],
    [
      "extents",
      BLOCK_STATUS,
      extents(512, 0, 1024, 3, 512, 2),
      { error: 0, extents: ["512", "1024hz", "512z"] },
    ],
  ])("%s", (_, command, bytes, outcome) => {
    expect(receive(command, bytes, pieces)).toMatchObject(outcome);
  });

  test.each<[string, number, Uint8Array]>([
    ["what is no reply", READ, new Uint8Array(16)],
    ["an answer to nothing", READ, simple(3)],
    ["an answer to what was asked before", READ, simple(2 ** 32)],
    ["a second answer", WRITE, concatenate([simple(0), simple(0)])],
    ["less than all", READ, data(0, 4, 7, DONE)],
    ["more than all", READ, data(0, 9, 7, DONE)],
    ["what lies before", READ, data(-1, 4, 7, DONE)],
    ["a hole behind", READ, hole(7, 2, DONE)],
    ["data for a write", WRITE, data(0, 8, 7, DONE)],
    ["extents for a read", READ, extents(512, 0)],
    ["no extents", BLOCK_STATUS, extents()],
    ["an unknown part", READ, chunk(0, DONE, 77, new Uint8Array(4))],
    [
      "an endless part",
      READ,
      concatenate([number(0x668e33ef, 4), number(1, 2), number(5, 2), big(0), number(2 ** 31, 4)]),
    ],
  ])("%s is refused", (_, command, bytes) => {
    expect(() => receive(command, bytes, pieces)).toThrow(/^it (sent|answered|told) /);
  });
});

test("replies that are changed anywhere are understood or refused, and nothing else", () => {
  const seed = anySeed();
  console.log(`seed ${seed}`);
  const random = new Random(seed);
  const streams: readonly (readonly [number, Uint8Array])[] = [
    [READ, concatenate([data(6, 2, 3), hole(2, 4), error(5, "bad"), data(0, 2, 1), chunk(0, DONE, 0)])],
    [BLOCK_STATUS, extents(512, 0, 1024, 3)],
    [WRITE, concatenate([error(28, "full", 0), simple(0)])],
  ];
  for (let round = 0; round < 3000; round += 1) {
    const [command, stream] = streams[round % streams.length] ?? [READ, new Uint8Array()];
    const changed = stream.slice();
    for (let changes = 1 + random.below(3); changes > 0; changes -= 1)
      changed[random.below(changed.length)] = random.oneIn(2) ? random.below(256) : random.below(4);
    try {
      receive(command, changed, 1 + random.below(64));
    } catch (thrown) {
      expect(thrown).toBeInstanceOf(ProtocolError);
    }
  }
});

test.each([
  [
    ["512", "1024hz"],
    ["512", "1024hz"],
  ],
  [
    ["100", "924hz", "512"],
    ["512", "512hz", "512"],
  ],
  [
    ["1000hz", "24", "512hz"],
    ["512hz", "512", "512hz"],
  ],
  [["100hz"], ["512"]],
  [["512", "100hz"], ["512"]],
  [["300hz", "300hz", "424"], ["512"]],
])("extents %p in whole blocks", (given, whole) => {
  const parsed = given.map((text) => ({
    length: Number.parseInt(text, 10),
    hole: text.includes("h"),
    zero: text.includes("z"),
  }));
  expect(wholeBlocks(parsed, 512).map(textOf)).toEqual(whole);
});
