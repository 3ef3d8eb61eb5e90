/** Goal: kept writes are returned byte by byte and in order, however often the memory wraps, up to a limit. */
import { expect, test } from "bun:test";
import { ClientRequest } from "../../../../src/nbd/client/request.ts";
import { UnflushedWrites } from "../../../../src/nbd/client/unflushed.ts";
import { anySeed } from "../../../../src/values/random.ts";
import { Random } from "../../../support/random.ts";

const BYTES = 4096;
const WRITE = 1;
const TRIM = 4;
const FUA = 1 << 16;

function request(command: number, offset: number, buffer: Uint8Array): ClientRequest {
  const made = new ClientRequest(0);
  made.command = command;
  made.flags = FUA;
  made.offset = offset;
  made.length = buffer.length;
  made.buffer = command === WRITE ? buffer : undefined;
  return made;
}

/** One line for each byte that is written or trimmed. */
function linesOf({ command, flags, offset, length, buffer }: ClientRequest): string[] {
  return Array.from({ length }, (_, at) => `${command} ${flags} ${offset + at} ${buffer?.[at]}`);
}

test("a sequence of writes and flushes", () => {
  const seed = anySeed();
  console.log(`seed ${seed}`);
  const random = new Random(seed);
  const unflushed = new UnflushedWrites(BYTES);
  let kept: ClientRequest[] = [];
  let bytes = 0;
  for (let step = 0; step < 2000; step += 1) {
    const length = 1 + random.below(BYTES / 4);
    const command = random.oneIn(4) ? TRIM : WRITE;
    const made = request(command, random.below(2 ** 20), new Uint8Array(length).fill(step));
    const fits = command === TRIM || bytes + length <= BYTES;
    expect(unflushed.reserve(made)).toBe(fits);
    if (!fits || random.oneIn(20)) {
      unflushed.release(made);
      unflushed.forget(unflushed.end);
      [kept, bytes] = [[], 0];
      continue;
    }
    unflushed.keep(made);
    kept.push(made);
    if (command === WRITE) bytes += length;
    if (step % 50 !== 0) continue;
    const found: string[] = [];
    for (let at = unflushed.first; at < unflushed.end; at += 1) {
      const loaded = new ClientRequest(1);
      unflushed.load(at, loaded);
      found.push(...linesOf(loaded));
    }
    expect(found).toEqual(kept.flatMap(linesOf));
  }
  unflushed.close();
});

test("what is set aside counts, and is given back once", () => {
  const unflushed = new UnflushedWrites(BYTES);
  const [one, two] = [
    request(WRITE, 0, new Uint8Array(BYTES / 2)),
    request(WRITE, 0, new Uint8Array(BYTES / 2 + 1)),
  ];
  expect([unflushed.reserve(one), unflushed.reserve(two)]).toEqual([true, false]);
  unflushed.release(one);
  unflushed.release(one);
  expect([unflushed.reserve(two), unflushed.reserve(one)]).toEqual([true, false]);
  unflushed.close();
});
