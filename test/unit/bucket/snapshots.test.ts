/** Goal: a snapshot has the contents of one moment, and keeps them whatever the disk's writers and cleaners do. */
import { afterEach, describe, expect, setSystemTime, test } from "bun:test";
import type { BucketDisk } from "../../../devices/bucket/device.ts";
import { openBucket } from "../../../devices/bucket/open-bucket.ts";
import { checksumOf } from "../../../devices/bucket/format.ts";
import { BLOCK_BYTES, type PutResult } from "../../../devices/bucket/parts.ts";
import { parsePoint } from "../../../devices/bucket/points.ts";
import { makeSnapshot, removeSnapshot } from "../../../devices/bucket/snapshots.ts";
import { StoreError } from "../../../devices/bucket/store-error.ts";
import {
  type Bucket,
  Client,
  Interrupted,
  keysOf,
  lateOnes,
  NO_FAULTS,
  PROMPT_FAULTS,
} from "../../support/bucket.ts";
import {
  BLOCKS,
  blocksOf,
  BY_HAND,
  contentsOf,
  filled,
  made,
  Model,
  OPTIONS,
  replace,
  silent,
  work,
} from "../../support/bucket-disk.ts";
import { userFailure } from "../../support/failure.ts";
import { chooseSeed, Random } from "../../support/random.ts";

const DAY_MS = 24 * 60 * 60_000;

afterEach(() => void setSystemTime());

/** As if a day had passed. */
function ageMarks(bucket: Bucket): void {
  for (const key of keysOf(bucket, "reader/")) {
    const [, ...rest] = key.split(".");
    bucket.objects.delete(key);
    const time = (Date.now() - DAY_MS - 1000).toString(16).padStart(12, "0");
    bucket.put([`reader/${time}`, ...rest].join("."), new Uint8Array(1));
  }
}

async function contentsAt(bucket: Bucket, point: string): Promise<number[]> {
  const disk = await openBucket(new Client(bucket), { ...BY_HAND, at: parsePoint(point) });
  const contents = await contentsOf(disk);
  await disk.close();
  return contents;
}

/** A disk with 1 in every block, and its writer. */
async function begun(): Promise<{ bucket: Bucket; writer: BucketDisk }> {
  const bucket = await made();
  const writer = await openBucket(new Client(bucket), BY_HAND);
  await replace(writer, 1);
  return { bucket, writer };
}

test("snapshots read as they were made, beside writers that go on, clean, and take the disk over", async () => {
  const seed = chooseSeed("bucket snapshots");
  for (let round = 0; round < 6; round += 1) {
    const bucket = await made();
    const random = new Random(seed + round);
    const model = new Model();
    const snapshots = new Map<string, number[]>();
    let writer = await openBucket(new Client(bucket, PROMPT_FAULTS, seed + round), OPTIONS);
    for (let step = 0; step < 12; step += 1) {
      const name = `s${step}`;
      const flushed = model.flushed;
      const [record] = await Promise.all([
        makeSnapshot(new Client(bucket, PROMPT_FAULTS, seed + 100 * round + step), name, silent),
        work(writer, model, random, 1 + random.below(80)),
      ]);
      const found = await contentsAt(bucket, name);
      const states = model.states.slice(flushed).map((state) => state.join());
      expect(states, `seed ${seed}, round ${round}, ${name}`).toContain(found.join());
      expect(record.live).toBe(found.filter((value) => value !== 0).length * BLOCK_BYTES);
      snapshots.set(name, found);
      if (random.oneIn(3)) {
        const gone = random.pick([...snapshots.keys()]);
        await removeSnapshot(new Client(bucket, PROMPT_FAULTS, seed + step), gone);
        snapshots.delete(gone);
      }
      if (random.oneIn(4)) {
        await writer.flush?.();
        writer = await openBucket(new Client(bucket, PROMPT_FAULTS, seed + 1000 * round + step), OPTIONS);
      }
      for (const [each, contents] of snapshots) expect(await contentsAt(bucket, each)).toEqual(contents);
    }
    // A PUT may arrive a second time after its object was removed.
    await lateOnes();
    for (const key of keysOf(bucket, "snapshot/"))
      await removeSnapshot(new Client(bucket), key.slice("snapshot/".length));
    ageMarks(bucket);
    await replace(writer, 7);
    await writer.close();
    // Nothing of them is left.
    expect(keysOf(bucket, "snapshot")).toEqual([]);
    expect(keysOf(bucket, "reader/")).toEqual([]);
    const segments = keysOf(bucket, "log/").filter((key) => bucket.objects.get(key)?.length !== 1021);
    expect(segments.length).toBe(BLOCKS / 8);
  }
}, 120_000);

describe("whatever happens between any two operations", () => {
  test("of making a snapshot, its writer's checkpoints included, it is of one moment and stays", async () => {
    for (let at = 0; ; at += 1) {
      const { bucket, writer } = await begun();
      const maker = new Interrupted(bucket, async (operation) => {
        if (operation !== at) return;
        await replace(writer, 2);
        await replace(writer, 3);
      });
      await makeSnapshot(maker, "a", silent);
      const found = await contentsAt(bucket, "a");
      expect([filled(1), filled(3)], `operation ${at}`).toContainEqual(found);
      await replace(writer, 4);
      await replace(writer, 5);
      expect(await contentsAt(bucket, "a"), `operation ${at}`).toEqual(found);
      if (maker.begun <= at) break;
    }
  }, 60_000);

  test.each(["make", "read, which is removed"])(
    "of a checkpoint, one can %s a snapshot",
    async (what) => {
      for (let at = 0; ; at += 1) {
        const bucket = await made();
        let reader: BucketDisk | undefined;
        let isWatched = false;
        const client = new Interrupted(bucket, async (operation) => {
          if (!isWatched || operation !== at) return;
          if (what === "make") {
            await makeSnapshot(new Client(bucket), "a", silent);
            return;
          }
          reader = await openBucket(new Client(bucket), { ...BY_HAND, at: parsePoint("b") });
          await removeSnapshot(new Client(bucket), "b");
        });
        const writer = await openBucket(client, BY_HAND);
        await replace(writer, 1);
        await makeSnapshot(new Client(bucket), "b", silent);
        await replace(writer, 2);
        [client.begun, isWatched] = [0, true];
        await replace(writer, 3);
        isWatched = false;
        const isOver = client.begun <= at;
        const look = (): Promise<number[]> =>
          reader === undefined ? contentsAt(bucket, "a") : contentsOf(reader);
        if (!isOver) {
          const found = await look();
          if (what !== "make") expect(found).toEqual(filled(1));
          await replace(writer, 4);
          await replace(writer, 5);
          expect(await look(), `operation ${at}`).toEqual(found);
        }
        expect(await contentsOf(writer)).toEqual(filled(isOver ? 3 : 5));
        if (isOver) break;
      }
    },
    60_000,
  );

  test.each([
    ["making", NO_FAULTS],
    ["making on a bad network", PROMPT_FAULTS],
    ["removing", NO_FAULTS],
  ])(
    "of %s a snapshot, a death leaves a whole one or nothing that lasts",
    async (what, faults) => {
      const seed = chooseSeed("snapshot deaths");
      let wasAlive = false;
      for (let operation = 0; !wasAlive; operation += 1)
        for (const isApplied of [false, true]) {
          const { bucket, writer } = await begun();
          if (what === "removing") await makeSnapshot(new Client(bucket), "a", silent);
          const client = new Client(bucket, faults, seed + operation);
          client.death = { operation, isApplied };
          const act = what === "removing" ? removeSnapshot(client, "a") : makeSnapshot(client, "a", silent);
          await Promise.race([act, client.died]);
          wasAlive = !client.isDead;
          await lateOnes();
          await replace(writer, 2);
          await lateOnes();
          const isThere = bucket.objects.has("snapshot/a");
          const why = `seed ${seed}, operation ${operation}`;
          if (isThere) expect(await contentsAt(bucket, "a"), why).toEqual(filled(1));
          ageMarks(bucket);
          await replace(writer, 3);
          if (isThere) {
            expect(await contentsAt(bucket, "a"), why).toEqual(filled(1));
            await removeSnapshot(new Client(bucket), "a");
            await replace(writer, 4);
          }
          expect(keysOf(bucket, "reader/"), why).toEqual([]);
          expect(keysOf(bucket, "snapshot"), why).toEqual([]);
          // Two claims, and every block once.
          expect(keysOf(bucket, "log/").length, why).toBe(2 + BLOCKS / 8);
        }
    },
    60_000,
  );
});

test("a machine that stops for more than a day while it makes a snapshot makes none, or a whole one", async () => {
  let refused = 0;
  for (let at = 0; ; at += 1) {
    setSystemTime();
    const { bucket, writer } = await begun();
    const maker = new Interrupted(bucket, async (operation) => {
      if (operation !== at) return;
      setSystemTime(Date.now() + DAY_MS + 1000);
      await replace(writer, 2);
      await replace(writer, 3);
    });
    const failure = await makeSnapshot(maker, "a", silent).then(
      () => undefined,
      (error: unknown) => String(error),
    );
    await replace(writer, 4);
    if (failure === undefined)
      expect([filled(1), filled(3)], `operation ${at}`).toContainEqual(await contentsAt(bucket, "a"));
    else {
      refused += 1;
      expect(failure, `operation ${at}`).toMatch(/took too long, or this machine had stopped: try again/);
      expect(keysOf(bucket, "snapshot/"), `operation ${at}`).toEqual([]);
    }
    if (maker.begun <= at) break;
  }
  expect(refused).toBeGreaterThan(0);
});

test("a snapshot that arrives after its maker has given up is whole", async () => {
  const { bucket, writer } = await begun();
  let arrive = silent;
  const maker = new (class extends Client {
    override async create(key: string, body: Uint8Array<ArrayBuffer>): Promise<PutResult> {
      if (!key.startsWith("snapshot/")) return super.create(key, body);
      arrive = () => void bucket.put(key, body);
      throw new StoreError("busy", "no answer in time");
    }
  })(bucket);
  expect(await userFailure(makeSnapshot(maker, "a", silent))).toContain("no answer in time");
  await replace(writer, 2);
  await replace(writer, 3);
  arrive();
  expect(await contentsAt(bucket, "a")).toEqual(filled(1));
});

test("a snapshot that is damaged can be removed, and stops cleaning until then", async () => {
  const { bucket, writer } = await begun();
  bucket.put("snapshot/a", new Uint8Array(100));
  expect(await userFailure(replace(writer, 2))).toContain("snapshot/a is damaged");
  await removeSnapshot(new Client(bucket), "a");
  await replace(writer, 3);
  // Two claims, and every block once.
  expect(keysOf(bucket, "log/").length).toBe(2 + BLOCKS / 8);
});

test.each([
  ["a name twice", "a", 'has a snapshot "a" already: give another name'],
  ["a number for a name", "12", 'invalid name "12" of a snapshot: give a letter'],
  ["a path for a name", "../a", 'invalid name "../a" of a snapshot: give a letter'],
])("%s is refused", async (_, name, line) => {
  const bucket = await made();
  await makeSnapshot(new Client(bucket), "a", silent);
  const before = [...bucket.objects.keys()];
  expect(await userFailure(makeSnapshot(new Client(bucket), name, silent))).toContain(line);
  expect([...bucket.objects.keys()]).toEqual(before);
});

test("what is no snapshot is refused", async () => {
  const bucket = await made();
  expect(await userFailure(contentsAt(bucket, "none"))).toContain(
    'has no snapshot "none": "tsbuse bucket-list"',
  );
  expect(await userFailure(removeSnapshot(new Client(bucket), "none"))).toContain('has no snapshot "none"');
  expect(keysOf(bucket, "reader/")).toEqual([]);
});

test("who may not write makes none, and is told why in one line", async () => {
  const bucket = await made();
  const client = new (class extends Client {
    override create(): Promise<never> {
      return Promise.reject(new StoreError("refused", `${this.name}: access denied`));
    }
  })(bucket);
  const lines: string[] = [];
  const failure = userFailure(makeSnapshot(client, "a", (line) => void lines.push(line)));
  expect(await failure).toBe("s3://bucket/disk: access denied");
  expect(lines).toEqual([]);
});

test("of two that give the same name at once one does", async () => {
  const bucket = await made();
  const results = await Promise.allSettled([1, 2].map(() => makeSnapshot(new Client(bucket), "a", silent)));
  expect(results.map(({ status }) => status).toSorted()).toEqual(["fulfilled", "rejected"]);
});

/** Turns every object into what version 1 would have written. */
function makeOld(bucket: Bucket): void {
  for (const [key, body] of bucket.objects) {
    if (key.startsWith("log/")) {
      const view = new DataView(body.buffer, body.byteOffset);
      view.setUint16(8, 1, true);
      view.setBigUint64(120, checksumOf(body.subarray(0, 120)), true);
    } else if (key === "disk" || key.startsWith("checkpoint/")) {
      const [, json = ""] = new TextDecoder().decode(body).split("\n");
      const { through: _, oldest: __, keepMs: ___, segments: ____, ...rest } = JSON.parse(json);
      const old = JSON.stringify({ ...rest, version: 1 });
      const sum = checksumOf(new TextEncoder().encode(old)).toString(16).padStart(16, "0");
      bucket.objects.set(key, new TextEncoder().encode(`${sum}\n${old}\n`));
    }
  }
}

test("a disk of version 1 opens, and has snapshots once no older program can have it", async () => {
  const bucket = await made();
  const old = await openBucket(new Client(bucket), BY_HAND);
  await replace(old, 1);
  await old.write?.(blocksOf(2, 1), 0);
  await old.flush?.();
  makeOld(bucket);
  const make = (): Promise<unknown> => makeSnapshot(new Client(bucket), "a", silent);
  expect(await userFailure(make())).toContain("was last attached by an older tsbuse");
  const expected = filled(1).with(0, 2);
  const writer = await openBucket(new Client(bucket), { ...BY_HAND, keepMs: DAY_MS });
  expect(await contentsOf(writer)).toEqual(expected);
  await make();
  await replace(writer, 3);
  await replace(writer, 4);
  expect(await contentsAt(bucket, "a")).toEqual(expected);
  expect(await contentsOf(writer)).toEqual(filled(4));
});

test("segments that a snapshot keeps are not emptied, for that would free nothing", async () => {
  const bucket = await made();
  const disk = await openBucket(new Client(bucket), OPTIONS);
  const lies = (block: number): number | undefined => {
    disk.history.map.find(block, 1);
    return disk.history.map.segmentNumber(disk.history.map.foundIndex);
  };
  await replace(disk, 1);
  const before = Array.from({ length: BLOCKS / 8 }, (_, segment) => lies(segment * 8));
  await makeSnapshot(new Client(bucket), "a", silent);
  for (let step = 0; step < 10; step += 1) {
    for (let block = 0; block < BLOCKS; block += 8)
      await disk.write?.(blocksOf(2, 7), (block + 1) * BLOCK_BYTES);
    await disk.checkpoint();
  }
  expect(before.map((_, segment) => lies(segment * 8))).toEqual(before);
  await removeSnapshot(new Client(bucket), "a");
  for (let step = 0; lies(0) === before[0] && step < 100; step += 1) {
    await disk.write?.(blocksOf(3, 8), 8 * BLOCK_BYTES);
    await disk.flush?.();
  }
  expect(lies(0)).not.toBe(before[0]);
  await disk.close();
});
