/** Goal: a disk opens as it was at any point that is kept, and reports a point that is not. */
import { afterEach, expect, setSystemTime, test } from "bun:test";
import type { BucketDisk } from "../../../devices/bucket/device.ts";
import { openBucket } from "../../../devices/bucket/open-bucket.ts";
import { BLOCK_BYTES } from "../../../devices/bucket/parts.ts";
import { parsePoint } from "../../../devices/bucket/points.ts";
import { makeSnapshot } from "../../../devices/bucket/snapshots.ts";
import { StoreError } from "../../../devices/bucket/store-error.ts";
import { type Bucket, Client, keysOf } from "../../support/bucket.ts";
import { BLOCKS, blocksOf, contentsOf, made, OPTIONS } from "../../support/bucket-disk.ts";
import { userFailure } from "../../support/failure.ts";
import { chooseSeed, Random } from "../../support/random.ts";
import { until } from "../../support/shell.ts";

const HOUR_MS = 60 * 60_000;
const START_MS = Date.parse("2026-01-01T00:00:00Z");

interface Moment {
  readonly number: number;
  readonly time: number;
  readonly contents: readonly number[];
}

afterEach(() => void setSystemTime());

/** The last number of the log. */
function endOf(bucket: Bucket): number {
  return Math.max(...keysOf(bucket, "log/").map((key) => Number.parseInt(key.slice("log/".length), 16)));
}

function timeText(ms: number): string {
  return new Date(ms).toISOString();
}

async function contentsAt(bucket: Bucket, point: string): Promise<number[]> {
  const disk = await openBucket(new Client(bucket), { ...OPTIONS, at: parsePoint(point) });
  const contents = await contentsOf(disk);
  expect(disk.write).toBeUndefined();
  await disk.close();
  return contents;
}

/** Some writes every hour, and the state after them; sometimes by another writer. */
async function liveFor(
  bucket: Bucket,
  hours: number,
  random: Random,
  open: () => Promise<BucketDisk>,
): Promise<Moment[]> {
  const moments: Moment[] = [];
  let disk = await open();
  for (let hour = 1; hour <= hours; hour += 1) {
    setSystemTime(START_MS + hour * HOUR_MS);
    if (random.oneIn(6)) {
      await disk.flush?.();
      disk = await open();
    }
    for (let count = 1 + random.below(8); count > 0; count -= 1) {
      const block = random.below(BLOCKS - 4);
      await disk.write?.(blocksOf(hour * 10 + count, 4), block * BLOCK_BYTES);
      if (random.oneIn(3)) await disk.trim?.(random.below(BLOCKS) * BLOCK_BYTES, BLOCK_BYTES);
    }
    await disk.flush?.();
    if (random.oneIn(3)) await disk.checkpoint();
    moments.push({ number: endOf(bucket), time: Date.now(), contents: await contentsOf(disk) });
  }
  await disk.checkpoint();
  return moments;
}

test("with --keep every point of that time opens as it was, by number and by time, and older ones go", async () => {
  const seed = chooseSeed("bucket points");
  for (let round = 0; round < 3; round += 1) {
    setSystemTime(START_MS);
    const bucket = await made();
    // Only the first writer gets the message.
    let keepMs: number | undefined = 24 * HOUR_MS;
    const open = async (): Promise<BucketDisk> => {
      const disk = await openBucket(new Client(bucket), { ...OPTIONS, keepMs });
      keepMs = undefined;
      return disk;
    };
    const moments = await liveFor(bucket, 60, new Random(seed + round), open);
    let kept = 0;
    for (const { number, time, contents } of moments)
      for (const point of [String(number), timeText(time), timeText(time + HOUR_MS - 1)]) {
        if (Date.parse(point) > Date.now()) continue;
        const found = await contentsAt(bucket, point).catch((error: unknown) => String(error));
        const isYoung = time > Date.now() - 24 * HOUR_MS;
        if (isYoung || typeof found !== "string") {
          expect(found, `seed ${seed}, round ${round}, ${point}`).toEqual([...contents]);
          kept += 1;
        } else expect(found).toContain("is no longer kept: give number ");
      }
    expect(kept).toBeLessThan(moments.length * 3);
    const segments = [...bucket.objects.keys()].filter((key) => key.startsWith("log/")).length;
    expect(segments).toBeLessThan(endOf(bucket) * 0.75);
  }
}, 120_000);

test("without --keep the past goes with the next checkpoint, but for snapshots", async () => {
  setSystemTime(START_MS);
  const bucket = await made();
  const OPEN = { ...OPTIONS, interval: { segments: 1_000_000, times: 0, segmentsMax: 1_000_000 } };
  const disk = await openBucket(new Client(bucket), OPEN);
  const moments: Moment[] = [];
  for (let step = 1; step <= 20; step += 1) {
    setSystemTime(START_MS + step * HOUR_MS);
    await disk.write?.(blocksOf(step, 1), 0);
    await disk.flush?.();
    moments.push({ number: endOf(bucket), time: Date.now(), contents: await contentsOf(disk) });
    if (step === 5) await makeSnapshot(new Client(bucket), "five", () => undefined);
    if (step === 10) await disk.checkpoint();
  }
  const client = new Client(bucket);
  const at = (point: string): Promise<BucketDisk> => openBucket(client, { ...OPEN, at: parsePoint(point) });
  for (const [index, { number, time, contents }] of moments.entries()) {
    if (index + 1 >= 10) {
      expect(await contentsAt(bucket, String(number))).toEqual([...contents]);
      expect(await contentsAt(bucket, timeText(time))).toEqual([...contents]);
    } else if (index + 1 === 5) expect(await contentsAt(bucket, String(number))).toEqual([...contents]);
    else
      expect(await userFailure(at(String(number)))).toContain(
        `as of number ${number} is no longer kept: give number ${moments[9]?.number} (2026-01-01T10:00:00.000Z) or later`,
      );
  }
  const end = endOf(bucket);
  expect(await userFailure(at(String(end + 1)))).toContain(`ends at number ${end}: give that or less`);
  expect(await userFailure(at("2026-01-02T00:00:00Z"))).toContain("is in the future");
  expect(await userFailure(at("2025-12-31T23:00:00Z"))).toContain("was created at 2026-01-01T00:00:00.000Z");
  expect(await userFailure(at("2026-01-01T07:00:00Z"))).toContain("as of that time is no longer kept");
  expect(await contentsAt(bucket, "five")).toEqual([...(moments[4]?.contents ?? [])]);
  // A refused client leaves nothing behind.
  expect([...bucket.objects.keys()].filter((key) => key.startsWith("reader/"))).toEqual([]);
  await disk.close();
});

test("a clock that is set back between a segment and its checkpoint tears nothing", async () => {
  setSystemTime(START_MS);
  const bucket = await made();
  let disk: BucketDisk | undefined;
  const client = new (class extends Client {
    override async create(key: string, body: Uint8Array<ArrayBuffer>): ReturnType<Client["create"]> {
      if (key.startsWith("map/")) {
        // The page has the old block in a slot that holds the new one in the end.
        await disk?.write?.(blocksOf(4, 1), 16 * BLOCK_BYTES);
        await disk?.write?.(blocksOf(5, 1), 8 * BLOCK_BYTES);
      }
      if (key.startsWith("checkpoint/")) setSystemTime(START_MS + 9 * HOUR_MS);
      const result = await super.create(key, body);
      // The segment after the checkpoint's.
      if (key.startsWith("log/") && endOf(bucket) === 4) setSystemTime(START_MS + 5 * HOUR_MS);
      return result;
    }
  })(bucket);
  const once = { segments: 1, times: 0, segmentsMax: 1 };
  disk = await openBucket(client, { ...OPTIONS, interval: once });
  setSystemTime(START_MS + 8 * HOUR_MS);
  await disk.write?.(blocksOf(1, 8), 0);
  await disk.write?.(blocksOf(3, 1), 8 * BLOCK_BYTES);
  await until("there is a checkpoint", () =>
    [...bucket.objects.keys()].some((key) => key.startsWith("checkpoint/")),
  );
  const expected = Array.from({ length: BLOCKS }, (_, block): number => (block < 8 ? 1 : 0))
    .with(8, 5)
    .with(16, 4);
  expect(await contentsAt(bucket, timeText(START_MS + 6 * HOUR_MS))).toEqual(expected);
  await disk.close();
});

test.each([
  ["that keeps the state", false],
  ["that does not", true],
])("a checkpoint %s, between any two operations of a reader that has no mark", async (_, isReplaced) => {
  const filled = Array.from({ length: BLOCKS }, () => 1);
  for (let at = 0; ; at += 1) {
    setSystemTime(START_MS);
    const bucket = await made();
    const OPEN = { ...OPTIONS, interval: { segments: 1_000_000, times: 0, segmentsMax: 1_000_000 } };
    const disk = await openBucket(new Client(bucket), OPEN);
    const replace = async (value: number): Promise<void> => {
      for (let block = 0; block < BLOCKS; block += 8)
        await disk.write?.(blocksOf(value, 8), block * BLOCK_BYTES);
      await disk.flush?.();
    };
    await replace(1);
    const number = endOf(bucket);
    let operation = 0;
    const client = new (class extends Client {
      override create(): Promise<never> {
        return Promise.reject(new StoreError("refused", "access denied"));
      }
      override async get(...args: Parameters<Client["get"]>): ReturnType<Client["get"]> {
        operation += 1;
        if (operation - 1 === at) {
          if (isReplaced) await replace(2);
          await disk.checkpoint();
        }
        return super.get(...args);
      }
    })(bucket);
    const point = parsePoint(String(number));
    const found = await openBucket(client, { ...OPEN, log: () => undefined, at: point })
      .then(contentsOf)
      .catch(String);
    if (typeof found !== "string" || !isReplaced) expect(found, `operation ${at}`).toEqual(filled);
    else
      expect(found, `operation ${at}`).toMatch(/is no longer kept: give number|is not kept any more; attach/);
    if (operation <= at) break;
  }
});

test("a date is that of the local time, as a time is", () => {
  const before = process.env["TZ"];
  process.env["TZ"] = "Asia/Tokyo";
  const points = ["2026-01-31", "2026-01-31T00:00", "2026-01-31T00:00+09:00"].map((text) => parsePoint(text));
  if (before === undefined) delete process.env["TZ"];
  else process.env["TZ"] = before;
  expect<unknown>(points).toEqual(points.map(() => ({ kind: "time", time: Date.UTC(2026, 0, 30, 15) })));
});

test.each([
  ["12", { kind: "number", number: 12 }],
  ["nightly-1", { kind: "name", name: "nightly-1" }],
  ["2026-01-31T12:00:00Z", { kind: "time", time: Date.UTC(2026, 0, 31, 12) }],
  ["2026-01-31T12:00+02:00", { kind: "time", time: Date.UTC(2026, 0, 31, 10) }],
])("%s is a point", (text, point) => {
  expect<unknown>(parsePoint(text)).toEqual(point);
});

test.each(["2026-13-31", "12:00", "", "-1", "a/b"])("%p is no point", (text) => {
  expect(() => parsePoint(text)).toThrow(/is not a time: give|invalid name/);
});
