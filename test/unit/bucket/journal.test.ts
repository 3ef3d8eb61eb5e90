/**
 * A disk that flushes to a local journal: the same machine finds everything that was flushed, another one a prefix,
 * whatever dies at whatever moment.
 */
import { describe, expect, test } from "bun:test";
import type { BucketDisk, BucketOptions } from "../../../devices/bucket/device.ts";
import { openBucket } from "../../../devices/bucket/open-bucket.ts";
import { newName } from "../../../devices/bucket/format.ts";
import { scanJournal } from "../../../devices/bucket/journal-scan.ts";
import { findDisk, openDisk } from "../../../devices/bucket/opening.ts";
import { BLOCK_BYTES, type PutResult } from "../../../devices/bucket/parts.ts";
import { ALL_FAULTS, Bucket, Client, type Faults, keysOf, NO_FAULTS } from "../../support/bucket.ts";
import { blocksOf, contentsOf, expectState, made, Model, OPTIONS, work } from "../../support/bucket-disk.ts";
import { userFailure } from "../../support/failure.ts";
import { DiskHandle, type Fault, JournalDisk } from "../../support/journal-disk.ts";
import { chooseSeed, Random } from "../../support/random.ts";
import { until } from "../../support/shell.ts";

const ROUNDS = 30;

/** One life on a machine with a journal. */
function openHere(
  client: Client,
  disk: JournalDisk,
  random: Random,
  options: Partial<BucketOptions> = {},
): Promise<BucketDisk> {
  const journal = new DiskHandle(disk, client, random);
  return openBucket(client, { ...OPTIONS, log: () => undefined, ...options, journal });
}

/** The state that any machine finds in the bucket: the first possible one from `low` on. */
async function shown(bucket: Bucket, model: Model, low: number, why: string): Promise<number> {
  const reader = await openBucket(new Client(bucket), { ...OPTIONS, readOnly: true });
  const found = await contentsOf(reader);
  await reader.close();
  const state = model.states.findIndex(
    (values, index) => index >= low && values.every((value, at) => value === found[at]),
  );
  if (state < 0) throw new Error(`${why}: no state from ${low} on: ${found.join(" ")}`);
  return state;
}

/** Reports each new object. */
class Watched extends Client {
  onMade = async (): Promise<void> => undefined;

  override async create(key: string, body: Uint8Array<ArrayBuffer>): Promise<PutResult> {
    const result = await super.create(key, body);
    await this.onMade();
    return result;
  }
}

/** PUTs stop after some operations: each is done when it is released, or never. */
class Stalled extends Client {
  stallsAt = Infinity;
  readonly stalled: (() => unknown)[] = [];

  override async create(key: string, body: Uint8Array<ArrayBuffer>): Promise<PutResult> {
    if (this.operations < this.stallsAt) return super.create(key, body);
    const copy = body.slice();
    return new Promise((resolve) => {
      this.stalled.push(() => resolve(this.bucket.put(key, copy)));
    });
  }
}

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

describe("a machine that dies at any operation of the bucket or its own disk", () => {
  const CASES: readonly (readonly [string, Faults, boolean])[] = [
    ["on a good network", NO_FAULTS, false],
    ["on a bad network", ALL_FAULTS, false],
    ["on a good network, each write kept", NO_FAULTS, true],
  ];
  test.each(CASES)(
    "finds what was flushed, and others a prefix, %s",
    async (_, faults, writeThrough) => {
      const seed = chooseSeed("journal deaths");
      const stride = faults === NO_FAULTS ? 2 : 5;
      let wasAlive = false;
      let replayed = 0;
      const log = (): unknown => (replayed += 1);
      for (let operation = 0; !wasAlive; operation += stride) {
        const why = `seed ${seed}, operation ${operation}`;
        const random = new Random(seed + operation);
        const [bucket, disk, model] = [await made(), new JournalDisk(), new Model()];
        let client = new Client(bucket, faults, seed + operation);
        client.death = { operation, isApplied: random.oneIn(2) };
        const life = async (): Promise<void> => {
          const here = await openHere(client, disk, random, { writeThrough });
          await work(here, model, new Random(seed), 50);
          await here.close();
        };
        await Promise.race([life(), client.died]);
        wasAlive = !client.isDead;
        let low = await shown(bucket, model, 0, why);
        let opened: BucketDisk | undefined;
        // It may die repeatedly while it adds to the bucket what that lacks.
        for (let tries = 0; opened === undefined; tries += 1) {
          // A kill loses nothing that was written, and so nothing that was answered.
          if (!writeThrough && random.oneIn(2)) disk.lostPower(random);
          else disk.killed(random);
          client = new Client(bucket, faults, random.word());
          if (tries < 5) client.death = { operation: random.below(80), isApplied: random.oneIn(2) };
          opened = await Promise.race([
            openHere(client, disk, random, { log }),
            client.died.then(() => undefined),
          ]);
          low = await shown(bucket, model, low, `${why}, try ${tries}`);
        }
        client.death = undefined;
        if (writeThrough) model.flushed = Math.max(model.flushed, model.last - 1);
        const state = await expectState(opened, model, why);
        expect(model.states[low], why).toEqual(model.states[state] ?? []);
        const after = new Model();
        after.states[0] = model.states[state] ?? [];
        await work(opened, after, new Random(seed + 1), 20);
        await opened.close();
        const last = await openBucket(new Client(bucket), OPTIONS);
        expect(await contentsOf(last)).toEqual(after.states[after.last] ?? []);
        await last.close();
      }
      console.log(`${replayed} journals held something`);
      expect(replayed).toBeGreaterThan(0);
    },
    120_000,
  );
});

test("any of the segments on their way may get there, sooner or later, and none is applied twice", async () => {
  const seed = chooseSeed("journal segments");
  let segments = 0;
  for (let round = 0; round < ROUNDS; round += 1) {
    const why = `seed ${seed}, round ${round}`;
    const random = new Random(seed + round);
    const [bucket, disk, model] = [await made(), new JournalDisk(), new Model()];
    const stalled = new Stalled(bucket, NO_FAULTS, seed + round);
    const here = await openHere(stalled, disk, random);
    stalled.stallsAt = stalled.operations + random.below(30);
    const working = work(here, model, random, 200);
    working.catch(() => undefined);
    await until("all it can take is written", async () => {
      const { last } = model;
      await turns(30);
      return model.last === last;
    });
    stalled.die();
    segments += stalled.stalled.length;
    let low = await shown(bucket, model, 0, why);
    let opened: BucketDisk | undefined;
    for (let tries = 0; opened === undefined; tries += 1) {
      for (const put of stalled.stalled) if (random.oneIn(3)) put();
      const look = async (): Promise<void> => {
        low = await shown(bucket, model, low, `${why}, try ${tries}`);
      };
      await look();
      if (random.oneIn(2)) disk.lostPower(random);
      else disk.killed(random);
      const client = new Watched(bucket, ALL_FAULTS, random.word());
      client.onMade = look;
      if (tries < 6) client.death = { operation: 10 + random.below(120), isApplied: random.oneIn(2) };
      opened = await Promise.race([openHere(client, disk, random), client.died.then(() => undefined)]);
      client.death = undefined;
      await look();
    }
    const state = await expectState(opened, model, why);
    expect(model.states[low], why).toEqual(model.states[state] ?? []);
    for (const put of stalled.stalled) put();
    await opened.close();
    expect(await shown(bucket, model, low, why)).toBe(low);
  }
  expect(segments).toBeGreaterThan(ROUNDS);
}, 60_000);

describe("another machine has taken the disk over", () => {
  test.each([true, false])("while the journal held something: %p", async (isHolding) => {
    const [bucket, disk] = [await made(), new JournalDisk()];
    const random = new Random(1);
    const client = new Stalled(bucket);
    const here = await openHere(client, disk, random);
    await here.write?.(blocksOf(1, 2), 0);
    await here.flush?.();
    if (isHolding) {
      client.stallsAt = 0;
      await here.write?.(blocksOf(2, 2), BLOCK_BYTES);
      await here.flush?.();
      client.die();
    } else await here.close();
    const there = await openBucket(new Client(bucket), OPTIONS);
    await there.write?.(blocksOf(3, 1), 0);
    await there.flush?.();
    const log = (): string[] => keysOf(bucket, "log/");
    const [before, objects] = [disk.current.slice(), log()];
    const back = openHere(new Client(bucket), disk, random);
    if (isHolding) {
      const owner =
        /was taken over by process \d+ on \S+ at \d{4}-\d\d-\d\dT[\d:.]+Z, and the journal in \/journal holds earlier/;
      expect(await userFailure(back)).toMatch(owner);
      // Nothing was lost.
      expect(Buffer.compare(disk.current, before)).toBe(0);
      expect(log()).toEqual(objects);
      await there.write?.(blocksOf(4, 1), 0);
      await there.close();
      const anew = await openHere(new Client(bucket), new JournalDisk(), random);
      expect((await contentsOf(anew))[0]).toBe(4);
    } else expect((await contentsOf(await back)).slice(0, 3)).toEqual([3, 1, 0]);
  });
});

test("a takeover at any moment of bringing a journal to the bucket is noticed, unless all of it is there", async () => {
  const seed = chooseSeed("journal takeovers");
  const outcomes = new Set<string>();
  for (let operation = 0, wasAlive = false; !wasAlive; operation += 1) {
    const random = new Random(seed + operation);
    const [bucket, disk, model] = [await made(), new JournalDisk(), new Model()];
    const stalled = new Stalled(bucket);
    const here = await openHere(stalled, disk, random);
    stalled.stallsAt = 0;
    for (let value = 1; value <= 24; value += 1) {
      model.change(value % 7, 1, value);
      await here.write?.(blocksOf(value, 1), (value % 7) * BLOCK_BYTES);
      await here.flush?.();
    }
    stalled.die();
    const client = new Client(bucket, NO_FAULTS, random.word());
    client.death = { operation, isApplied: random.oneIn(2) };
    await Promise.race([openHere(client, disk, random), client.died]);
    wasAlive = !client.isDead;
    disk.killed(random);
    const state = await shown(bucket, model, 0, `operation ${operation}`);
    const elsewhere = new Client(bucket);
    const claimant = { writer: newName(), owner: "somebody elsewhere" };
    await openDisk(elsewhere, await findDisk(elsewhere), claimant);
    const there = await openBucket(elsewhere, OPTIONS);
    await there.write?.(blocksOf(99, 1), 9 * BLOCK_BYTES);
    await there.flush?.();
    const expected = await contentsOf(there);
    // Otherwise some would be served as if nothing had happened.
    const back = await openHere(new Client(bucket), disk, random).catch(String);
    outcomes.add(typeof back === "string" ? "refused" : "served");
    if (typeof back === "string") expect(back).toContain("was taken over by somebody elsewhere");
    else expect(await contentsOf(back)).toEqual(expected);
    expect({ operation, isRefused: typeof back === "string" }).toEqual({
      operation,
      isRefused: state < model.last,
    });
  }
  expect(outcomes.size).toBe(2);
});

describe("a local disk that fails at any operation", () => {
  test.each<Fault>(["ENOSPC", "hang"])(
    "leaves flushes to the bucket: %s",
    async (kind) => {
      const seed = chooseSeed("journal faults");
      for (let operation = 12; operation < 60; operation += kind === "hang" ? 12 : 3) {
        const random = new Random(seed + operation);
        const [bucket, disk, model] = [await made(), new JournalDisk(), new Model()];
        const client = new Client(bucket, NO_FAULTS, seed);
        const journal = new DiskHandle(disk, client, random);
        const lines: string[] = [];
        const log = (line: string): unknown => lines.push(line);
        const here = await openBucket(client, { ...OPTIONS, log, journal });
        journal.fault = { operation, kind };
        if (kind === "hang") journal.patienceMs = 20;
        await work(here, model, random, 150);
        model.flushed = model.last;
        await here.flush?.();
        expect(lines).toEqual([
          expect.stringMatching(/^the journal in \/journal .*; flushes wait for the bucket until/),
        ]);
        await shown(bucket, model, model.flushed, `seed ${seed}, operation ${operation}`);
        await work(here, model, random, 10);
        client.die();
        if (random.oneIn(2)) disk.lostPower(random);
        else disk.killed(random);
        const next = await openHere(new Client(bucket), disk, random);
        await expectState(next, model, `seed ${seed}, operation ${operation}`);
        await next.close();
      }
    },
    60_000,
  );
});

test("writes wait for a store that is away once the journal is full, and go on", async () => {
  const client = new Stalled(await made());
  const disk = new JournalDisk();
  const here = await openHere(client, disk, new Random(1));
  client.stallsAt = 0;
  let done = 0;
  const writing = (async () => {
    for (let value = 1; value <= 100; value += 1) {
      await here.write?.(blocksOf(value, 1), 0);
      await here.flush?.();
      done = value;
    }
  })();
  await until("the journal is full", async () => {
    const before = done;
    await turns(50);
    return done === before;
  });
  // Four areas of sixteen blocks, and two blocks for each write.
  expect(done).toBe(32);
  client.stallsAt = Infinity;
  for (const put of client.stalled.splice(0)) put();
  await writing;
  client.die();
  const next = await openHere(new Client(client.bucket), disk, new Random(1));
  expect((await contentsOf(next))[0]).toBe(100);
});

/** A disk whose journal holds that many writes of block 0, and whose bucket holds none of them. */
async function writesOf(count: number, isSynced: boolean): Promise<{ bucket: Bucket; disk: JournalDisk }> {
  const [bucket, disk] = [await made(), new JournalDisk()];
  const client = new Stalled(bucket);
  const here = await openHere(client, disk, new Random(1), { writeThrough: !isSynced });
  client.stallsAt = 0;
  for (let value = 1; value <= count; value += 1) {
    await here.write?.(blocksOf(value, 1), 0);
    if (isSynced) await here.flush?.();
  }
  client.die();
  return { bucket, disk };
}

/** The offset of each batch in the file. */
async function offsetsOf(disk: JournalDisk): Promise<number[]> {
  const { header, batches } = await scanJournal(handleOf(disk));
  const { areas = 0, areaBlocks = 0 } = header ?? {};
  return batches.map(({ number, at }) => (2 + (number % areas) * areaBlocks + at) * BLOCK_BYTES);
}

const handleOf = (disk: JournalDisk): DiskHandle =>
  new DiskHandle(disk, new Client(new Bucket()), new Random(1));

test("a journal that is cut off or damaged at any byte holds the batches before, and no other ones", async () => {
  const { disk } = await writesOf(3, true);
  const whole = disk.current;
  const [, second = 0, third = 0] = await offsetsOf(disk);
  const scan = async (): Promise<string> => {
    const { header, batches, strays } = await scanJournal(handleOf(disk));
    return `${header?.disk.length} ${batches.map((batch) => batch.sequence).join()} ${strays.length}`;
  };
  expect(await scan()).toBe("32 1,2,3 0");
  // All of the header and the table; every 61st byte of the rest.
  const bytes = Array.from({ length: 2 * BLOCK_BYTES }, (_, at) => at);
  for (const at of bytes.filter((byte) => byte < 128 || byte % 61 === 0)) {
    disk.current = whole.slice();
    disk.current.fill(0, third + at, third + 2 * BLOCK_BYTES);
    expect(await scan(), `cut at ${at}`).toBe("32 1,2 0");
    disk.current = whole.slice();
    disk.current[second + at] = 0x55 ^ (whole[second + at] ?? 0);
    expect(await scan(), `damaged at ${at}`).toBe("32 1 1");
    disk.current = whole.slice();
    disk.current[at] = 0x55 ^ (whole[at] ?? 0);
    expect(await scan(), `header damaged at ${at}`).toBe("32 1,2,3 0");
  }
}, 60_000);

test.each<[string, (disk: JournalDisk) => unknown, string]>([
  ["short", (disk) => (disk.current = disk.current.slice(0, -1)), "is damaged: move it away"],
  ["without a header", (disk) => disk.current.fill(1, 0, 2 * BLOCK_BYTES), "is damaged: move it away"],
  ["of another disk", () => undefined, "is of another disk: give each disk its own"],
])("a journal that is %s is refused, and the disk stays whose it is", async (_, spoil, line) => {
  const { bucket, disk } = await writesOf(3, true);
  spoil(disk);
  const [before, where] = [disk.current.slice(), line.includes("another") ? await made() : bucket];
  const log = [...where.objects.keys()];
  expect(await userFailure(openHere(new Client(where), disk, new Random(1)))).toContain(line);
  expect([...where.objects.keys()]).toEqual(log);
  expect(Buffer.compare(disk.current, before)).toBe(0);
});

// Eight batches of two blocks fill an area.
test.each([
  ["one that was synced, in the same boot", true, 2, false, undefined],
  ["one that was synced, after a restart", true, 2, true, undefined],
  ["one that was not synced, in the same boot", false, 2, false, undefined],
  ["one that was not synced, after a restart", false, 2, true, 1],
  ["the first one, not synced, after a restart", false, 1, true, 0],
  ["the last one of an area, in the same boot", false, 8, false, undefined],
  ["the last one of an area, not synced, after a restart", false, 8, true, 7],
  ["the first one of an area, not synced, after a restart", false, 9, true, 8],
  ["the last one", true, 10, false, 9],
])("of the batches %s is damaged", async (_, isSynced, batch, isRestarted, value) => {
  const { bucket, disk } = await writesOf(10, isSynced);
  const at = (await offsetsOf(disk))[batch - 1] ?? 0;
  disk.current.fill(0x77, at + BLOCK_BYTES, at + BLOCK_BYTES + 1);
  if (isRestarted) disk.boots += 1;
  const opened = openHere(new Client(bucket), disk, new Random(1));
  if (value === undefined)
    expect(await userFailure(opened)).toContain("the journal in /journal is damaged: move it away");
  else expect((await contentsOf(await opened))[0]).toBe(value);
});
