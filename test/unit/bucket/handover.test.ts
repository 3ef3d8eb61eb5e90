/** Goal: if the store refuses in the middle of a handover, that is a pause; earlier, a refusal that disturbs nobody. */
import { expect, test } from "bun:test";
import type { BucketDisk } from "../../../devices/bucket/device.ts";
import { LateDisk } from "../../../devices/bucket/late-disk.ts";
import { openBucket } from "../../../devices/bucket/open-bucket.ts";
import { BLOCK_BYTES } from "../../../devices/bucket/parts.ts";
import { S3Store } from "../../../devices/bucket/s3.ts";
import { BLOCKS, blocksOf, OPTIONS } from "../../support/bucket-disk.ts";
import { userFailure } from "../../support/failure.ts";
import { S3Server } from "../../support/s3-server.ts";

/** As in a separate process. */
function storeOf({ environment }: S3Server): S3Store {
  return new S3Store({
    bucket: "b",
    prefix: "p/",
    endpoint: environment["AWS_ENDPOINT"],
    region: "here",
    credentials: { accessKeyId: "key", secretAccessKey: "secret" },
    log: () => undefined,
  });
}

/** A disk with its first block written. */
async function served(server: S3Server): Promise<BucketDisk> {
  const store = storeOf(server);
  const disk = await openBucket(store, { ...OPTIONS, create: BLOCKS * BLOCK_BYTES, writeThrough: true });
  store.patience.isEndless = true;
  await disk.write?.(blocksOf(1, 1), 0);
  return disk;
}

function taken(server: S3Server): Promise<LateDisk> {
  const store = storeOf(server);
  return LateDisk.of(store, undefined, () => openBucket(store, { ...OPTIONS, writeThrough: true }));
}

async function firstBlock(disk: LateDisk | BucketDisk): Promise<Uint8Array> {
  const block = new Uint8Array(BLOCK_BYTES);
  await disk.read(block, 0);
  return block;
}

test.each([
  ["find the disk", /^GET \S*\/disk$/],
  ["list its checkpoints", /^GET \/b\/?$/],
  ["read its log", /^GET \S*\/log\//],
  ["claim it", /^PUT \S*\/log\//],
])(
  "the next process may not %s when the one before has let go: it waits until it may",
  async (_, request) => {
    using server = new S3Server();
    const before = await served(server);
    const late = await taken(server);
    await before.close();
    const denial = server.deny(request);
    await Promise.all([late.prepare(), denial()]);
    expect(await firstBlock(late)).toEqual(blocksOf(1, 1));
    await late.write(blocksOf(2, 1), 0);
    await late.close();
  },
);

test("the process before may not write while it closes, and is killed: the next one has all that was answered", async () => {
  using server = new S3Server();
  const before = await served(server);
  const late = await taken(server);
  const denial = server.deny(/^PUT \S*\/(checkpoint|map)\//);
  const closing = before.close();
  // It does nothing more until the next process has the disk.
  await denial(() => late.prepare());
  expect(await firstBlock(late)).toEqual(blocksOf(1, 1));
  await closing;
  await late.close();
});

test("the store refuses before the handover: so does the next process, and the one before serves on", async () => {
  using server = new S3Server();
  const before = await served(server);
  const denial = server.deny(/^GET/);
  expect(await userFailure(taken(server))).toContain("access denied");
  await denial();
  await before.write?.(blocksOf(2, 1), 0);
  expect(await firstBlock(before)).toEqual(blocksOf(2, 1));
  await before.close();
});

test("what is read when a disk is closed is given up: no request outlives it", async () => {
  using server = new S3Server();
  const before = await served(server);
  await before.close();
  const store = storeOf(server);
  const disk = await openBucket(store, OPTIONS);
  store.patience.isEndless = true;
  const denial = server.deny(/^GET \S*\/log\//);
  const reading = Promise.resolve(disk.read(new Uint8Array(BLOCK_BYTES), 0)).catch((error: unknown) => error);
  await denial(() => disk.close());
  expect(await reading).toBeInstanceOf(DOMException);
});
