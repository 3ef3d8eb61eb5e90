/** Thousands of random requests, valid and invalid, in random pieces, against a model that is a plain array. */
import { expect, test } from "bun:test";
import { turns } from "../../../support/async-devices.ts";
import { AsyncStore } from "../../../support/async-devices.ts";
import { encode, encodeAll, READ, type Request } from "../../../support/golden.ts";
import { Model, rangeOf, RequestSource } from "../../../support/model.ts";
import { Peer } from "../../../support/peer.ts";
import { chooseSeed, Random } from "../../../support/random.ts";
import { RestlessDevice } from "../../../support/restless-device.ts";
import { MemoryShadow, Shadow } from "../../../support/shadow.ts";

const SIZE = 1024 * 1024;
const LONGEST = 64 * 1024;
const REQUESTS = 6000;
/** The maximum in flight, in bytes: fits an ordinary user's socket buffers. */
const BATCH_BYTES = 96 * 1024;
const BATCH_REQUESTS = 80;

/**
 * Requests that may be on their way together. The order in which requests in flight are done is the server's choice,
 * so none of them changes what an earlier one reads.
 */
function nextBatch(source: RequestSource, carried: Request | undefined): [Request[], Request | undefined] {
  const batch: Request[] = [];
  const reads: (readonly [number, number])[] = [];
  const limit = 1 + source.random.below(BATCH_REQUESTS);
  let bytes = 0;
  let request = carried ?? source.next();
  for (;;) {
    const [start, end] = rangeOf(request);
    if (request.command === READ) reads.push([start, end]);
    else if (reads.some(([from, to]) => start < to && from < end)) return [batch, request];
    batch.push(request);
    bytes += end - start;
    if (bytes > BATCH_BYTES || batch.length === limit) return [batch, undefined];
    request = source.next();
  }
}

/** Sends the bytes in random pieces, mostly with a run of the connection after each. */
async function feed(peer: Peer, bytes: Uint8Array, random: Random): Promise<void> {
  let at = 0;
  while (at < bytes.length) {
    const piece = 1 + random.below(random.pick([3, 30, 300, 3000, 30_000, bytes.length]));
    peer.send(bytes.subarray(at, at + piece));
    at += piece;
    if (at >= bytes.length || !random.oneIn(4)) peer.run();
    if (random.oneIn(20)) await turns(1);
  }
}

/** A device whose promises settle in any order. */
function slow(random: Random): Shadow {
  const device = new AsyncStore(SIZE);
  device.hold = () => (random.oneIn(3) ? turns(random.below(5)) : undefined);
  return device;
}

test.each<[string, (random: Random) => Shadow | MemoryShadow]>([
  ["plain", () => new Shadow(SIZE)],
  ["memory", () => new MemoryShadow(SIZE)],
  ["slow", slow],
  ["restless", (random) => new RestlessDevice(SIZE, random)],
])("a %s device behaves as the model does", async (name, make) => {
  const random = new Random(chooseSeed(`requests at random, ${name} device`));
  const model = new Model(SIZE);
  const device = make(random);
  using peer = new Peer(device);
  const source = new RequestSource(random, SIZE, LONGEST);
  let done = 0;
  let carried: Request | undefined;
  while (done < REQUESTS) {
    const [batch, next] = nextBatch(source, carried);
    carried = next;
    await feed(peer, encodeAll(batch), random);
    const replies = await peer.replies(batch);
    expect(replies).toHaveLength(batch.length);
    const byCookie = new Map(replies.map((reply) => [reply.cookie, reply]));
    for (const request of batch) {
      const expected = model.apply(request);
      const reply = byCookie.get(request.cookie);
      const same = reply?.error === expected.error && Buffer.compare(reply.payload, expected.payload) === 0;
      if (!same) expect({ request, ...reply }).toEqual({ request, cookie: request.cookie, ...expected });
    }
    done += batch.length;
  }
  expect(peer.outcome).toBe("turn");
  expect(peer.connection.requests).toBe(done);
  const most = device instanceof Shadow ? device.inFlightMax : 0;
  expect(most > 8).toBe(name === "slow" || name === "restless");
  const all: Request = { command: READ, cookie: 1n, offset: 0, length: SIZE };
  peer.send(encode(all));
  const [held] = await peer.replies([all]);
  expect(Buffer.compare(held?.payload ?? new Uint8Array(), model.bytes)).toBe(0);
  // A model of nothing but zeroes would prove little.
  expect(model.bytes.filter((byte) => byte !== 0).length).toBeGreaterThan(SIZE / 8);
});
