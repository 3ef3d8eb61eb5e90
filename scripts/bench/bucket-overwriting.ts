#!/usr/bin/env bun
/**
 * A disk in a real object store, Ceph's gateway with its data in memory, that is filled and then overwritten at random:
 * prints what it takes, each minute. Needs root, and Debian's radosgw, ceph-mon and ceph-osd. TSBUSE_SEED repeats it.
 * By itself it writes as fast as it can for an hour.
 *
 *     bun scripts/bench/bucket-overwriting.ts [MINUTES [MIB_PER_SECOND]]
 */
import { openBucket } from "../../devices/bucket/open-bucket.ts";
import { S3Store } from "../../devices/bucket/s3.ts";
import { BLOCK_BYTES, type PutResult } from "../../devices/bucket/parts.ts";
import { ObjectStoreServer } from "../../test/support/object-store.ts";
import { chooseSeed, Random } from "../../test/support/random.ts";

const KIB = 2 ** 10;
const MIB = 2 ** 20;
const GIB = 2 ** 30;
const DISK_BYTES = 512 * MIB;
const WRITE_BYTES = 4 * BLOCK_BYTES;
const MINUTE_MS = 60_000;

class CountingStore extends S3Store {
  puts = 0;
  sentBytes = 0;

  override async create(...args: Parameters<S3Store["create"]>): Promise<PutResult> {
    const result = await super.create(...args);
    this.puts += 1;
    this.sentBytes += args[1].length;
    return result;
  }

  async storedBytes(): Promise<number> {
    let bytes = 0;
    for await (const { size } of this.list("")) bytes += size;
    return bytes;
  }
}

async function main(minutes: number, bytesPerMs: number): Promise<void> {
  const seed = chooseSeed("overwriting");
  await using server = await ObjectStoreServer.start();
  await server.makeBucket("bench");
  const { AWS_ACCESS_KEY_ID = "", AWS_SECRET_ACCESS_KEY = "", AWS_REGION } = server.environment;
  const credentials = { accessKeyId: AWS_ACCESS_KEY_ID, secretAccessKey: AWS_SECRET_ACCESS_KEY };
  const { endpoint } = server;
  const place = { bucket: "bench", prefix: "disk/", endpoint, region: AWS_REGION };
  const store = new CountingStore({ ...place, credentials, log });
  const disk = await openBucket(store, { create: DISK_BYTES, log, writer: { compress: false } });
  // As the command has it once the disk is open.
  store.patience.isEndless = true;
  const data = new Uint8Array(WRITE_BYTES);
  for (let at = 0; at < DISK_BYTES; at += WRITE_BYTES) await disk.write?.(data, at);
  await disk.flush?.();
  const random = new Random(seed);
  for (let minute = 1; minute <= minutes; minute += 1) {
    const before = { puts: store.puts, sentBytes: store.sentBytes };
    const begin = performance.now();
    let written = 0;
    for (let ms = 0; ms < MINUTE_MS; ms = performance.now() - begin) {
      if (written > ms * bytesPerMs) {
        await Bun.sleep(1);
        continue;
      }
      await disk.write?.(data, random.below(DISK_BYTES / WRITE_BYTES) * WRITE_BYTES);
      written += WRITE_BYTES;
    }
    await disk.flush?.();
    const figures = [
      `minute ${minute}: ${(written / GIB).toFixed(2)} GiB written`,
      `${((await store.storedBytes()) / DISK_BYTES).toFixed(2)} bytes stored for each live one`,
      `${((store.sentBytes - before.sentBytes) / written).toFixed(2)} sent for each written`,
      `${((store.puts - before.puts) / (written / GIB)).toFixed(0)} PUTs for each GiB`,
      // Does not count the store's own processes, which hold the objects in memory.
      `${((process.resourceUsage().maxRSS * KIB) / MIB).toFixed(0)} MiB of memory at most`,
    ];
    console.log(figures.join(", "));
  }
  await disk.close();
}

function log(line: string): void {
  console.error(line);
}

await main(Number(Bun.argv[2] ?? 60), (Number(Bun.argv[3] ?? Infinity) * MIB) / 1000);
