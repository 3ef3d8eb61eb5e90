/**
 * Goal: whichever of a writer's last PUTs and DELETEs have reached the bucket when it ends, and whichever arrive later,
 * the disk holds a prefix of the writes, with everything that was flushed. `TSBUSE_STATES` sets the number of states.
 */
import { expect, test } from "bun:test";
import { openBucket } from "../../../devices/bucket/open-bucket.ts";
import { Client } from "../../support/bucket.ts";
import { contentsOf, expectState, made, Model, OPTIONS, work } from "../../support/bucket-disk.ts";
import { apply, type PutState, Witness } from "../../support/put-states.ts";
import { chooseSeed, Random } from "../../support/random.ts";

const STATES = Number(process.env["TSBUSE_STATES"] ?? 200);
/** Of each life of a writer. */
const STATES_OF_ONE = 20;
const STATE_MS = 300;

interface Bounds {
  readonly last: number;
  readonly flushed: number;
}

test(
  `${STATES} states of a bucket whose writer has ended`,
  async () => {
    const seed = chooseSeed("states of a bucket");
    let late = 0;
    for (let state = 0; state < STATES;) {
      const random = new Random(seed + state);
      const model = new Model();
      const witness = await live(model, random);
      for (let count = 0; count < STATES_OF_ONE && state < STATES; count += 1, state += 1) {
        const moment = random.below(witness.moments + 1);
        const likelihood = random.pick([0, 0.5, 1]);
        const found = witness.stateAt(moment, () => random.fraction() < likelihood);
        late += found.late.length;
        await expectPrefix(found, model, random, `seed ${seed}, state ${state}`);
      }
    }
    console.log(`${late} changes came late`);
    expect(late).toBeGreaterThan(0);
  },
  STATES * STATE_MS,
);

/** One life of a writer. */
async function live(model: Model, random: Random): Promise<Witness<Bounds>> {
  const bucket = await made();
  const client = new Client(bucket, undefined, random.word());
  const witness = new Witness(client, bucket, () => ({ last: model.last, flushed: model.flushed }));
  const disk = await openBucket(witness, OPTIONS);
  await work(disk, model, random, 20 + random.below(100));
  await disk.close();
  return witness;
}

/** Opens the disk, uses it while late changes arrive, and checks it again. */
async function expectPrefix(
  found: PutState<Bounds>,
  life: Model,
  random: Random,
  why: string,
): Promise<void> {
  const { bucket, late, mark } = found;
  const model = new Model();
  model.states.splice(0, 1, ...life.states.slice(0, mark.last + 1));
  model.flushed = mark.flushed;
  const reader = await openBucket(new Client(bucket), { ...OPTIONS, readOnly: true });
  const shown = await expectState(reader, model, `${why}, for a reader`);
  // Late changes may arrive at any of the next writer's operations.
  const coming = [...late];
  const client = new Client(bucket, undefined, random.word());
  const next = new Witness(client, bucket, () => {
    for (let at = coming.length - 1; at >= 0; at -= 1)
      if (random.oneIn(4)) for (const change of coming.splice(at, 1)) apply(bucket, change);
  });
  const disk = await openBucket(next, OPTIONS);
  const state = await expectState(disk, model, why);
  expect(state, why).toBeGreaterThanOrEqual(shown);
  const after = new Model();
  after.states[0] = model.states[state] ?? [];
  await work(disk, after, random, random.below(20));
  await disk.flush?.();
  for (const change of coming) apply(bucket, change);
  if (random.oneIn(2)) await disk.close();
  // A live writer removes what only the reader needs.
  client.isDead = true;
  const last = await openBucket(new Client(bucket), { ...OPTIONS, readOnly: true });
  expect(await contentsOf(last), why).toEqual(after.states[after.last] ?? []);
}
