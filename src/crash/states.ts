/** The states to try, one after another. The same seed gives the same states with the same numbers. */
import { Random } from "../values/random.ts";
import { type Choice, everyChoice, randomChoice, ruledChoices } from "./choices.ts";
import type { Contents } from "./contents.ts";
import { type Difference, differenceOf, Disk } from "./disk.ts";
import { type Epoch, epochsOf } from "./epochs.ts";
import type { History } from "./history.ts";

export interface State {
  /** Counted from 1. */
  readonly number: number;
  readonly epoch: Epoch;
  /** The epoch's pending changes that reached the disk. */
  readonly choice: Choice;
  /** The difference to the disk at the beginning of the epoch. */
  readonly difference: Difference;
  readonly disk: Disk;
}

export interface StatesOptions {
  readonly seed: number;
  /** The power does not fail before this time. */
  readonly from: number;
  /** How many sectors the disk writes as a whole or not at all. */
  readonly unit: number;
  /** Called for every sector in which the disk of the next state differs from the one before. */
  readonly changed: (sector: number) => void;
}

/** After this many random rounds in a row without a new state, no others are expected. */
const BARREN_ROUNDS = 16;

/**
 * Goes through all epochs in rounds: first only what is durable at the end of each, then everything that had begun,
 * then choices by rule, or every choice if there are few, then random ones. No two states have the same contents and
 * the same mark. The `disk` of a state is valid until the next state is requested. Ends when it finds no new states.
 */
export function* statesOf(history: History, contents: Contents, options: StatesOptions): Generator<State> {
  const seen = new Set<string>();
  let number = 0;
  let barren = 0;
  for (let round = 0; barren < BARREN_ROUNDS; round += 1) {
    const before = number;
    let isOver = true;
    const disk = new Disk(contents, options.changed);
    for (const epoch of epochsOf(history, options.from)) {
      disk.store(epoch.stored);
      const random = new Random((options.seed ^ Math.imul(round * 65_537 + epoch.index, 0x9e3779b1)) >>> 0);
      const { choices, mayBringMore } = choicesOf(round, epoch, random, options.unit);
      isOver &&= !mayBringMore;
      for (const choice of choices) {
        const difference = differenceOf(choice, disk);
        const name = `${disk.hashWith(difference)} ${epoch.mark ?? ""}`;
        if (seen.has(name)) continue;
        seen.add(name);
        number += 1;
        yield { number, epoch, choice, difference, disk };
      }
    }
    for (const sector of disk.sectors) options.changed(sector);
    if (isOver) return;
    barren = number === before ? barren + 1 : 0;
  }
}

interface Choices {
  readonly choices: Iterable<Choice>;
  /** Whether a later round may have other choices. */
  readonly mayBringMore: boolean;
}

function choicesOf(round: number, { pending }: Epoch, random: Random, unit: number): Choices {
  if (round === 0) return { choices: [[]], mayBringMore: pending.length > 0 };
  if (pending.length === 0) return { choices: [], mayBringMore: false };
  if (round === 1) return { choices: [pending], mayBringMore: true };
  const every = everyChoice(pending, unit);
  if (every !== undefined) return { choices: round === 2 ? every : [], mayBringMore: false };
  const choices = round === 2 ? ruledChoices(pending, random) : [randomChoice(pending, random, unit)];
  return { choices, mayBringMore: true };
}
