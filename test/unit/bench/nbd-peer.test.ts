/** The server in C is a ceiling only if it does the work: it stores, trims and answers as the protocol says. */
import { beforeAll, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { buildNbdInC, nbdInC, placeOf } from "../../../scripts/bench/servers.ts";
import { turns } from "../../support/async-devices.ts";
import { chooseSeed, pattern, Random } from "../../support/random.ts";
import { hello } from "../../support/golden-handshake.ts";
import {
  concatenate,
  decodeReplies,
  encodeAll,
  FLUSH,
  READ,
  REPLY_BYTES,
  type Request,
  TRIM,
  WRITE,
} from "../../support/golden.ts";
import { Model } from "../../support/model.ts";
import { RawClient } from "../../support/raw-client.ts";
import { until } from "../../support/shell.ts";
import { TemporaryDirectory } from "../../support/temporary.ts";

const KIB = 1024;
const SIZE = 16 * KIB * KIB;
const BLOCK = 4 * KIB;
/** More than a socket's buffers hold. */
const LONGEST = 1024 * KIB;
const NOISE = pattern(2 * LONGEST);
/** The greeting, the export's size and flags, and the acknowledgement. */
const HANDSHAKE_BYTES = 18 + 32 + 20;

beforeAll(buildNbdInC);

/** The expected bytes of successful replies. */
function replyBytes(requests: readonly Request[]): number {
  const data = requests.map(({ command, length = 0 }) => (command === READ ? length : 0));
  return data.reduce((sum, length) => sum + REPLY_BYTES + length, 0);
}

/** The server as the benchmark starts it, except for the size. */
async function startPeer(directory: TemporaryDirectory) {
  const place = placeOf(nbdInC(), directory.path, directory.path);
  const [binary = "", socket = ""] = nbdInC().command(place);
  const child = Bun.spawn([binary, socket, String(SIZE)], { stdio: ["ignore", "ignore", "inherit"] });
  await until("the server listens", () => existsSync(socket));
  return {
    pid: child.pid,
    /** Its answers to requests on a separate connection, which are cut in two somewhere. */
    ask: async (requests: readonly Request[], random: Random): Promise<Uint8Array> => {
      using client = await RawClient.connect(`nbd+unix:///?socket=${socket}`);
      client.send(hello());
      await client.take(HANDSHAKE_BYTES);
      const bytes = encodeAll(requests);
      const cut = random.below(bytes.length);
      client.send(bytes.subarray(0, cut));
      await turns(random.below(10));
      client.send(bytes.subarray(cut));
      return await client.take(replyBytes(requests));
    },
    [Symbol.asyncDispose]: async () => {
      child.kill();
      await child.exited;
    },
  };
}

function residentBytes(pid: number): number {
  return Number(/^Rss:\s*(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"))?.[1]) * KIB;
}

/** Only reads, or only changes, because requests sent together may be done in any order, and data is sent last. */
function anyRequests(random: Random, commands: readonly number[]): Request[] {
  const requests: Request[] = [];
  for (let left = LONGEST; left > 0;) {
    const command = random.pick(commands);
    const longest = command === TRIM ? SIZE / 4 : left;
    const length = BLOCK * (1 + random.below(random.pick([1, longest / BLOCK])));
    const offset = BLOCK * random.below((SIZE - length) / BLOCK + 1);
    const cookie = BigInt(requests.length);
    if (command === WRITE)
      requests.push({ command, cookie, offset, payload: NOISE.subarray(length, 2 * length) });
    else requests.push({ command, cookie, offset, length: command === FLUSH ? 0 : length });
    left -= command === READ || command === WRITE ? length : BLOCK;
  }
  return requests;
}

test("any requests are answered as the protocol says, and trimmed memory goes", async () => {
  const random = new Random(chooseSeed("the server in C"));
  using directory = new TemporaryDirectory();
  await using peer = await startPeer(directory);
  const model = new Model(SIZE);
  for (let batch = 0; batch < 60; batch += 1) {
    const requests = anyRequests(random, batch % 2 === 0 ? [WRITE, WRITE, TRIM, FLUSH] : [READ]);
    const expected = requests.map((request) => model.apply(request).payload);
    const answer = await peer.ask(requests, random);
    const replies = decodeReplies(answer, requests);
    expect(replies.map(({ cookie, error }) => ({ cookie, error }))).toEqual(
      requests.map(({ cookie }) => ({ cookie, error: 0 })),
    );
    const payloads = concatenate(replies.map(({ payload }) => payload));
    expect(Buffer.compare(payloads, concatenate(expected)), `batch ${batch}`).toBe(0);
  }
  let written = 0;
  for (let at = 0; at < SIZE; at += BLOCK)
    if (model.bytes.subarray(at, at + BLOCK).some((byte) => byte !== 0)) written += BLOCK;
  expect(written).toBeGreaterThan(0);
  const before = residentBytes(peer.pid);
  const trim: Request = { command: TRIM, cookie: 1n, offset: 0, length: SIZE };
  await peer.ask([trim], random);
  expect(before - residentBytes(peer.pid)).toBeGreaterThanOrEqual(written);
});
