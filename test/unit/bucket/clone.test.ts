/** Goal: a clone has the contents of its snapshot for as long as it exists, whatever happens to either disk. */
import { expect, test } from "bun:test";
import { cleanBucket } from "../../../devices/bucket/clean.ts";
import { cloneDisk } from "../../../devices/bucket/clone.ts";
import type { BucketDisk, BucketOptions } from "../../../devices/bucket/device.ts";
import { openBucket } from "../../../devices/bucket/open-bucket.ts";
import { type ObjectStore } from "../../../devices/bucket/parts.ts";
import { makeSnapshot, removeSnapshot } from "../../../devices/bucket/snapshots.ts";
import { summarize } from "../../../devices/bucket/summary.ts";
import { summaryText } from "../../../src/cli/commands/bucket-list.ts";
import { Bucket, Client, Interrupted, lateOnes, PROMPT_FAULTS } from "../../support/bucket.ts";
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

/** Prefixes in one bucket. */
class Disks {
  readonly buckets = new Map<string, Bucket>();

  at(prefix: string): Bucket {
    const bucket = this.buckets.get(prefix) ?? new Bucket();
    this.buckets.set(prefix, bucket);
    return bucket;
  }

  readonly beside = (prefix: string): ObjectStore => new Client(this.at(prefix));

  open(prefix: string, options: BucketOptions = BY_HAND): Promise<BucketDisk> {
    return openBucket(new Client(this.at(prefix)), { ...options, beside: this.beside });
  }

  clone(from: string, name: string, to: string): Promise<string> {
    return cloneDisk(this.#placed(from), name, this.#placed(to), silent);
  }

  keys(prefix: string, first: string): string[] {
    return [...this.at(prefix).objects.keys()].filter((key) => key.startsWith(first));
  }

  #placed(prefix: string) {
    return { store: new Client(this.at(prefix)), prefix };
  }
}

/** Every block at "a/" holds 1, and so does its snapshot "one". */
async function begun(): Promise<{ disks: Disks; origin: BucketDisk }> {
  const disks = new Disks();
  await made(disks.at("a/"));
  const origin = await disks.open("a/");
  await replace(origin, 1);
  await makeSnapshot(new Client(disks.at("a/")), "one", silent);
  return { disks, origin };
}

test("a clone and its origin go their own ways, and the origin keeps what the clone needs until it is gone", async () => {
  const { disks, origin } = await begun();
  const snapshot = await disks.clone("a/", "one", "b/");
  expect(snapshot).toMatch(/^clone-b-[0-9a-f]{8}$/);
  expect(disks.keys("b/", "log/")).toEqual([]);
  await removeSnapshot(new Client(disks.at("a/")), "one");
  await replace(origin, 2);
  await replace(origin, 3);
  let clone = await disks.open("b/");
  expect(await contentsOf(clone)).toEqual(filled(1));
  await clone.write?.(blocksOf(9, 8), 0);
  await clone.close();
  clone = await disks.open("b/");
  const expected = filled(1).fill(9, 0, 8);
  expect(await contentsOf(clone)).toEqual(expected);
  expect(await contentsOf(origin)).toEqual(filled(3));
  // A clone of the clone has segments of both disks.
  await makeSnapshot(new Client(disks.at("b/")), "two", silent);
  await disks.clone("b/", "two", "c/");
  await replace(clone, 4);
  await clone.close();
  const second = await disks.open("c/");
  expect(await contentsOf(second)).toEqual(expected);
  await second.close();
  await cleanBucket(new Client(disks.at("c/")), {
    takeOver: false,
    bandwidth: undefined,
    beside: disks.beside,
    log: silent,
  });
  const reader = await disks.open("c/", { ...BY_HAND, readOnly: true });
  expect(await contentsOf(reader)).toEqual(expected);
  const summary = await summarize(new Client(disks.at("c/")));
  expect(summary.origins).toEqual(["a/", "b/"]);
  expect(summaryText(summary)).toMatch(/^clone of  a\/, b\/$/m);
  expect((await summarize(new Client(disks.at("a/")))).snapshots).toMatchObject([{ clone: "b/" }]);
  const remove = (): Promise<void> => removeSnapshot(new Client(disks.at("a/")), snapshot, disks.beside);
  expect(await userFailure(remove())).toContain("delete all objects of the clone first");
  disks.buckets.delete("b/");
  await remove();
  await replace(origin, 5);
  // Two claims, and every block once.
  expect(disks.keys("a/", "log/").length).toBe(2 + BLOCKS / 8);
  expect(disks.keys("a/", "snapshot")).toEqual([]);
  expect(await userFailure(disks.open("c/"))).toContain("keeps nothing for it any more: delete its objects");
});

test("clones of disks at work hold what the snapshot did, and what was written to them", async () => {
  const seed = chooseSeed("clones");
  for (let round = 0; round < 5; round += 1) {
    const disks = new Disks();
    await made(disks.at("a/"));
    const random = new Random(seed + round);
    const [model, own] = [new Model(), new Model()];
    const origin = await openBucket(new Client(disks.at("a/"), PROMPT_FAULTS, seed + round), OPTIONS);
    await work(origin, model, random, 80);
    await makeSnapshot(new Client(disks.at("a/"), PROMPT_FAULTS, seed), "one", silent);
    const reader = await disks.open("a/", { ...OPTIONS, at: { kind: "name", name: "one" } });
    own.states[0] = await contentsOf(reader);
    await reader.close();
    await disks.clone("a/", "one", "b/");
    await removeSnapshot(new Client(disks.at("a/")), "one");
    for (let life = 0; life < 3; life += 1) {
      const clone = await openBucket(new Client(disks.at("b/"), PROMPT_FAULTS, seed - life), {
        ...OPTIONS,
        beside: disks.beside,
      });
      await Promise.all([work(clone, own, random, 40), work(origin, model, new Random(seed + life), 60)]);
      expect(await contentsOf(clone), `seed ${seed}, round ${round}`).toEqual(own.states[own.last] ?? []);
      await clone.close();
    }
    expect(await contentsOf(origin), `seed ${seed}, round ${round}`).toEqual(model.states[model.last] ?? []);
  }
}, 60_000);

/** The two clients that make a clone, one of which dies. */
test.each(["origin", "target"])(
  "a death of the %s's client leaves a clone, or nothing that lasts",
  async (side) => {
    const seed = chooseSeed("clone deaths");
    let wasAlive = false;
    for (let operation = 0; !wasAlive; operation += 1)
      for (const isApplied of [false, true]) {
        const { disks, origin } = await begun();
        const from = new Client(disks.at("a/"), PROMPT_FAULTS, seed + operation);
        const to = new Client(disks.at("b/"), PROMPT_FAULTS, seed - operation);
        const dying = side === "origin" ? from : to;
        dying.death = { operation, isApplied };
        const act = cloneDisk({ store: from, prefix: "a/" }, "one", { store: to, prefix: "b/" }, silent);
        await Promise.race([act, dying.died]);
        wasAlive = !dying.isDead;
        from.isDead = true;
        to.isDead = true;
        const why = `seed ${seed}, operation ${operation}`;
        await removeSnapshot(new Client(disks.at("a/")), "one");
        await replace(origin, 2);
        await replace(origin, 3);
        await lateOnes();
        if (disks.keys("a/", "snapshot/clone-").length > 0) {
          const clone = await disks.open("b/");
          expect(await contentsOf(clone), why).toEqual(filled(1));
        } else {
          expect(wasAlive, why).toBe(false);
          expect(await userFailure(disks.open("b/")), why).toMatch(/has no disk|was not completed/);
          for (const key of disks.keys("a/", "reader/")) disks.at("a/").objects.delete(key);
          await replace(origin, 4);
          expect(disks.keys("a/", "log/").length, why).toBe(2 + BLOCKS / 8);
          expect(disks.keys("a/", "snapshot"), why).toEqual([]);
        }
      }
  },
  60_000,
);

test("a snapshot that is removed while it is cloned makes a whole clone or none", async () => {
  for (let at = 0; ; at += 1) {
    const { disks, origin } = await begun();
    const from = new Interrupted(disks.at("a/"), async (operation) => {
      if (operation !== at) return;
      await removeSnapshot(new Client(disks.at("a/")), "one");
      await replace(origin, 2);
      await replace(origin, 3);
    });
    const to = new Client(disks.at("b/"));
    const act = cloneDisk({ store: from, prefix: "a/" }, "one", { store: to, prefix: "b/" }, silent);
    const isCloned = await succeeds(act);
    await replace(origin, 4);
    await expectClone(disks, isCloned, `operation ${at}`);
    if (from.begun <= at) break;
  }
}, 60_000);

/** A disk with an interrupted checkpoint, whose segments are all needed by the snapshot only. */
async function interrupted(before: (disks: Disks, operation: number) => Promise<void>): Promise<{
  readonly disks: Disks;
  readonly operations: number;
}> {
  const { disks } = await begun();
  let isWatched = false;
  const client = new Interrupted(disks.at("a/"), async (operation) => {
    if (isWatched) await before(disks, operation);
  });
  const origin = await openBucket(client, BY_HAND);
  await replace(origin, 2);
  [client.begun, isWatched] = [0, true];
  await replace(origin, 3);
  isWatched = false;
  return { disks, operations: client.begun };
}

test("a clone that is made, and whose snapshot is removed, between any two operations of a checkpoint", async () => {
  for (let at = 0; ; at += 1) {
    const { disks, operations } = await interrupted(async (own, operation) => {
      if (operation !== at) return;
      await own.clone("a/", "one", "b/");
      await removeSnapshot(new Client(own.at("a/")), "one");
    });
    if (operations <= at) break;
    await expectClone(disks, true, `operation ${at}`);
  }
}, 60_000);

test("a clone that ends at a later operation of a checkpoint than its snapshot does", async () => {
  let operations = 2;
  for (let first = 0; first + 1 < operations; first += 1)
    for (let second = first + 1; second < operations; second += 1) {
      const gate = Promise.withResolvers<void>();
      let act: Promise<boolean> | undefined;
      const found = await interrupted(async (own, operation) => {
        if (operation === first) {
          const reached = Promise.withResolvers<void>();
          const from = new (class extends Client {
            override async create(...args: Parameters<Client["create"]>): ReturnType<Client["create"]> {
              const [key] = args;
              if (key.startsWith("snapshot/")) {
                reached.resolve();
                await gate.promise;
              }
              return super.create(...args);
            }
          })(own.at("a/"));
          const to = { store: new Client(own.at("b/")), prefix: "b/" };
          act = succeeds(cloneDisk({ store: from, prefix: "a/" }, "one", to, silent));
          await reached.promise;
          await removeSnapshot(new Client(own.at("a/")), "one");
        }
        if (operation !== second) return;
        gate.resolve();
        await act;
      });
      operations = found.operations;
      gate.resolve();
      const isCloned = await act;
      if (isCloned !== undefined) await expectClone(found.disks, isCloned, `operations ${first}, ${second}`);
    }
}, 60_000);

function succeeds(act: Promise<unknown>): Promise<boolean> {
  return act.then(
    () => true,
    (error: unknown) => {
      expect(String(error)).toMatch(/has no snapshot "one"|was removed meanwhile|is gone/);
      return false;
    },
  );
}

/** The clone has the right contents, or left nothing. */
async function expectClone(disks: Disks, isCloned: boolean, why: string): Promise<void> {
  if (isCloned) {
    const clone = await disks.open("b/");
    expect(await contentsOf(clone), why).toEqual(filled(1));
    return;
  }
  expect([...disks.at("b/").objects.keys()], why).toEqual([]);
  expect(disks.keys("a/", "snapshot/"), why).toEqual([]);
}
