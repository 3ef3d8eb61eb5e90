/** Goal: a disk that is shown as it was stays so, whatever its writer replaces meanwhile. */
import { afterEach, expect, setSystemTime, test } from "bun:test";
import { type BucketDisk, openBucket } from "../../../devices/bucket/device.ts";
import { BLOCK_BYTES } from "../../../devices/bucket/parts.ts";
import { StoreError } from "../../../devices/bucket/store-error.ts";
import { type Bucket, Client } from "../../support/bucket.ts";
import { BLOCKS, blocksOf, contentsOf, made, OPTIONS as USUAL } from "../../support/bucket-disk.ts";
import { until } from "../../support/shell.ts";

/** Checkpoints are made where the test wants them. */
const OPTIONS = { ...USUAL, interval: { segments: 1_000_000, times: 0 } };
/** Objects of the log that hold every block once. */
const SEGMENTS = BLOCKS / 8;
/** Of the two writers. */
const CLAIMS = 2;
const DAY_MS = 24 * 60 * 60_000;

/** A client whose credentials are for reading alone. */
class ReadingClient extends Client {
  override create(): Promise<never> {
    return Promise.reject(new StoreError("refused", `${this.name}: access denied`));
  }
}

afterEach(() => void setSystemTime());

function keysOf({ objects }: Bucket, prefix: string): string[] {
  return [...objects.keys()].filter((key) => key.startsWith(prefix));
}

/** Replaces every block, and removes what nobody needs any more. */
async function replace(writer: BucketDisk, value: number): Promise<void> {
  for (let block = 0; block < BLOCKS; block += 8)
    await writer.write?.(blocksOf(value, 8), block * BLOCK_BYTES);
  await writer.checkpoint();
}

function filled(value: number): number[] {
  return Array.from({ length: BLOCKS }, () => value);
}

async function written(bucket: Bucket): Promise<BucketDisk> {
  const writer = await openBucket(new Client(bucket), OPTIONS);
  await replace(writer, 1);
  return writer;
}

test("what a reader sees stays while all of it is replaced, and is removed after it has gone", async () => {
  const bucket = await made();
  const writer = await written(bucket);
  const reader = await openBucket(new Client(bucket), { ...OPTIONS, readOnly: true });
  await replace(writer, 2);
  await replace(writer, 3);
  // What came and went after the reader began is not kept.
  await until("one mark is left", () => keysOf(bucket, "reader/").length === 1);
  await replace(writer, 4);
  expect(keysOf(bucket, "log/").length).toBe(CLAIMS + 2 * SEGMENTS);
  expect(await contentsOf(reader)).toEqual(filled(1));
  await reader.close();
  await replace(writer, 5);
  expect(await contentsOf(writer)).toEqual(filled(5));
  expect(keysOf(bucket, "log/").length).toBe(CLAIMS + SEGMENTS);
  expect(keysOf(bucket, "reader/")).toEqual([]);
});

test("a reader that was killed keeps nothing for more than a day, and says what has become of it", async () => {
  const bucket = await made();
  const writer = await written(bucket);
  const reader = await openBucket(new Client(bucket), { ...OPTIONS, readOnly: true });
  await until("one mark is left", () => keysOf(bucket, "reader/").length === 1);
  setSystemTime(Date.now() + DAY_MS - 60_000);
  await replace(writer, 2);
  expect(keysOf(bucket, "reader/").length).toBe(1);
  setSystemTime(Date.now() + 120_000);
  await replace(writer, 3);
  expect(keysOf(bucket, "reader/")).toEqual([]);
  await expect(contentsOf(reader)).rejects.toThrow("is not kept any more; attach it again");
});

test("a reader that may not write is served, and told what that means", async () => {
  const bucket = await made();
  const writer = await written(bucket);
  const lines: string[] = [];
  const options = { ...OPTIONS, readOnly: true, log: (line: string) => void lines.push(line) };
  const reader = await openBucket(new ReadingClient(bucket), options);
  expect(await contentsOf(reader)).toEqual(filled(1));
  expect(lines).toEqual([expect.stringContaining("access denied")]);
  await reader.close();
  await writer.close();
});

test("where there is no disk a reader leaves nothing", async () => {
  const bucket = await made();
  bucket.objects.clear();
  const client = new Client(bucket);
  await expect(openBucket(client, { ...OPTIONS, readOnly: true })).rejects.toThrow("has no disk");
  expect(client.operations).toBe(1);
});

test("a writer that reads what the next one has removed says who has the disk", async () => {
  const bucket = await made();
  const first = await written(bucket);
  const second = await openBucket(new Client(bucket), OPTIONS);
  await replace(second, 2);
  await expect(contentsOf(first)).rejects.toThrow("was taken over by process ");
  expect(() => first.write?.(blocksOf(3, 1), 0)).toThrow("was taken over by process ");
  expect(await contentsOf(second)).toEqual(filled(2));
});
