/** Goal: a disk shown as it was in the past stays unchanged, whatever its writer replaces meanwhile. */
import { afterEach, expect, setSystemTime, test } from "bun:test";
import type { BucketDisk } from "../../../devices/bucket/device.ts";
import { openBucket } from "../../../devices/bucket/open-bucket.ts";
import type { Listed, ObjectStore, PutResult } from "../../../devices/bucket/parts.ts";
import { ReaderMark, readMarks } from "../../../devices/bucket/reader-mark.ts";
import { StoreError } from "../../../devices/bucket/store-error.ts";
import { type Bucket, Client, keysOf } from "../../support/bucket.ts";
import { BLOCKS, blocksOf, BY_HAND, contentsOf, filled, made, replace } from "../../support/bucket-disk.ts";
import { errnoFailure, userFailure } from "../../support/failure.ts";
import { until } from "../../support/shell.ts";

/** The number of log objects that hold every block once. */
const SEGMENTS = BLOCKS / 8;
/** Of the two writers. */
const CLAIMS = 2;
const DAY_MS = 24 * 60 * 60_000;

/** A client with read-only credentials. */
class ReadingClient extends Client {
  override create(): Promise<never> {
    return Promise.reject(new StoreError("refused", `${this.name}: access denied`));
  }
}

afterEach(() => void setSystemTime());

/** A reader protects only objects that existed when it began. */
async function narrowed(bucket: Bucket): Promise<void> {
  await until("one mark is left", () => {
    const marks = keysOf(bucket, "reader/");
    return marks.length === 1 && !marks.join().includes("ffffffffffff");
  });
}

/** Changes the age of the only mark. */
function age(bucket: Bucket, ms: number): void {
  const [key = ""] = keysOf(bucket, "reader/");
  const [, number, name] = key.split(".");
  bucket.objects.delete(key);
  bucket.put(
    `reader/${(Date.now() - ms).toString(16).padStart(12, "0")}.${number}.${name}`,
    new Uint8Array(1),
  );
}

async function written(bucket: Bucket): Promise<BucketDisk> {
  const writer = await openBucket(new Client(bucket), BY_HAND);
  await replace(writer, 1);
  return writer;
}

test("what a reader sees stays while all of it is replaced, and is removed after it has gone", async () => {
  const bucket = await made();
  const writer = await written(bucket);
  const reader = await openBucket(new Client(bucket), { ...BY_HAND, readOnly: true });
  await replace(writer, 2);
  await replace(writer, 3);
  // Objects made and replaced after the reader began are not kept.
  await narrowed(bucket);
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
  const reader = await openBucket(new Client(bucket), { ...BY_HAND, readOnly: true });
  await narrowed(bucket);
  age(bucket, DAY_MS - 3_600_000);
  await replace(writer, 2);
  expect(keysOf(bucket, "reader/").length).toBe(1);
  age(bucket, DAY_MS + 1000);
  await replace(writer, 3);
  expect(keysOf(bucket, "reader/")).toEqual([]);
  const { message } = await errnoFailure(() => contentsOf(reader));
  expect(message).toContain("is not kept any more; attach it again");
});

test("marks that are renewed at once leave one", async () => {
  const bucket = await made();
  const mark = await ReaderMark.make(new Client(bucket), console.log);
  for (const upTo of [7, 8, 9]) mark?.narrow(upTo);
  await until("the last one is there", () => keysOf(bucket, "reader/").join().includes(".000000000009."));
  await narrowed(bucket);
  await mark?.close();
  expect(keysOf(bucket, "reader/")).toEqual([]);
});

test.each([false, true])(
  "a reader that ends while its mark is renewed leaves none, PUT done: %p",
  async (isDone) => {
    const bucket = await made();
    let closing: Promise<void> | undefined;
    const mark = await ReaderMark.make(
      new (class extends Client {
        override async create(...args: Parameters<ObjectStore["create"]>): Promise<PutResult> {
          const [key, body, signal] = args;
          const result = await super.create(key, body);
          if (key.includes(".000000000007.")) closing = mark?.close();
          if (!isDone) signal?.throwIfAborted();
          return result;
        }
        override async remove(...args: Parameters<ObjectStore["remove"]>): Promise<void> {
          args[1]?.throwIfAborted();
          await super.remove(args[0]);
        }
      })(bucket),
      console.log,
    );
    mark?.narrow(7);
    await until("it is closed", () => closing !== undefined);
    await closing;
    expect(keysOf(bucket, "reader/")).toEqual([]);
  },
);

test("a writer that is stopped for two days while marks are listed takes none for old", async () => {
  const bucket = await made();
  await ReaderMark.make(new Client(bucket), console.log);
  const client = new (class extends Client {
    override async *list(...args: Parameters<Client["list"]>): AsyncIterable<Listed> {
      for await (const listed of super.list(...args)) {
        setSystemTime(Date.now() + 2 * DAY_MS);
        yield listed;
      }
    }
  })(bucket);
  expect((await readMarks(client)).expired).toEqual([]);
  expect((await readMarks(new Client(bucket))).expired.length).toBe(1);
});

test("a reader that may not write is served, and told what that means", async () => {
  const bucket = await made();
  const writer = await written(bucket);
  const lines: string[] = [];
  const options = { ...BY_HAND, readOnly: true, log: (line: string) => void lines.push(line) };
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
  expect(await userFailure(openBucket(client, { ...BY_HAND, readOnly: true }))).toContain("has no disk");
  expect(client.operations).toBe(1);
});

test("a writer that reads what the next one has removed says who has the disk", async () => {
  const bucket = await made();
  const first = await written(bucket);
  const second = await openBucket(new Client(bucket), BY_HAND);
  await replace(second, 2);
  const { message } = await errnoFailure(() => contentsOf(first));
  expect(message).toContain("was taken over by process ");
  expect(() => first.write?.(blocksOf(3, 1), 0)).toThrow("was taken over by process ");
  expect(await contentsOf(second)).toEqual(filled(2));
});
