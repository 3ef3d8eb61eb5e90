/** Goes through the states, several at once, until something is found or time is up. */
import { join } from "node:path";
import { mkdirSync } from "node:fs";
import { Bench, type Subject } from "./bench.ts";
import { Check, type Finding } from "./checker.ts";
import { type Fault, shrinkFault } from "./fault.ts";
import { Image } from "./image.ts";
import { type State, statesOf } from "./states.ts";

export interface ExploreOptions {
  readonly seed: number;
  /** See StatesOptions. */
  readonly from: number;
  readonly unit: number;
  /** The first state to try, and the last: numbers, from 1 on. */
  readonly first: number;
  readonly last: number;
  /** Checkers at once. */
  readonly jobs: number;
  /** When to end: performance.now(). */
  readonly deadline: number;
  /** Milliseconds for making a finding smaller. */
  readonly shrinkTime: number;
  readonly signal: AbortSignal;
  /** Called after each state that was tried. `done`: all up to that number were. */
  readonly progress: (tried: number, done: number) => void;
}

export interface Exploration {
  readonly tried: number;
  /** All states up to that number were tried. */
  readonly done: number;
  /** There are no others. */
  readonly isComplete: boolean;
  readonly found: Found | undefined;
}

export interface Found {
  /** Of the state. */
  readonly number: number;
  readonly mark: string | undefined;
  /** Undefined: it was found once, and not again. */
  readonly fault: Fault | undefined;
  readonly finding: Finding;
}

interface Failed {
  readonly state: State;
  readonly finding: Finding;
}

/**
 * The image of what was found is at `bench.img` in the directory afterwards.
 * @throws UserError where there is no room for images.
 */
export async function explore(subject: Subject, options: ExploreOptions): Promise<Exploration> {
  const run = new Run(subject, options);
  try {
    await run.all();
    const { failed } = run;
    const found = failed === undefined ? undefined : await examine(subject, options, failed);
    return { tried: run.tried, done: run.done, isComplete: run.isComplete, found };
  } finally {
    run.close();
  }
}

class Run {
  tried = 0;
  isComplete = false;
  failed: Failed | undefined;
  readonly #places: readonly Place[];
  readonly #states: Iterator<State>;
  readonly #underWay = new Set<number>();
  #last: number;

  constructor(
    readonly subject: Subject,
    readonly options: ExploreOptions,
  ) {
    this.#last = options.first - 1;
    this.#places = Array.from({ length: options.jobs }, (_, index) => makePlace(subject, index));
    this.#states = statesOf(subject.history, subject.contents, {
      ...options,
      changed: (sector) => {
        for (const { image } of this.#places) image.outdate(sector);
      },
    });
  }

  /** All states up to that number were tried. */
  get done(): number {
    return Math.min(this.#last, ...[...this.#underWay].map((number) => number - 1));
  }

  async all(): Promise<void> {
    const kill = (): void => this.close();
    this.options.signal.addEventListener("abort", kill);
    try {
      await Promise.all(this.#places.map((place) => this.#work(place)));
    } finally {
      this.options.signal.removeEventListener("abort", kill);
    }
  }

  close(): void {
    for (const { check, image } of this.#places) {
      check.kill();
      image.close();
    }
  }

  async #work({ image, check }: Place): Promise<void> {
    for (;;) {
      const state = this.#next();
      if (state === undefined) return;
      image.load(state.disk, state.difference);
      const { timeoutMs } = this.subject;
      const finding = await check.run({ image: image.path, mark: state.epoch.mark, timeoutMs });
      if (this.options.signal.aborted) return;
      this.#underWay.delete(state.number);
      this.tried += 1;
      if (finding !== undefined) this.#fail({ state, finding });
      this.options.progress(this.tried, this.done);
    }
  }

  /** Undefined: it is over. */
  #next(): State | undefined {
    const { deadline, signal, first, last } = this.options;
    while (
      this.failed === undefined &&
      this.#last < last &&
      performance.now() < deadline &&
      !signal.aborted
    ) {
      const { value, done } = this.#states.next();
      if (done === true) {
        this.isComplete = true;
        return undefined;
      }
      if (value.number < first) continue;
      this.#last = value.number;
      this.#underWay.add(value.number);
      return value;
    }
    return undefined;
  }

  /** The first one is told of, whichever was found first. */
  #fail(failed: Failed): void {
    if (this.failed === undefined || failed.state.number < this.failed.state.number) this.failed = failed;
  }
}

interface Place {
  readonly image: Image;
  readonly check: Check;
}

function makePlace({ size, contents, checker, directory }: Subject, index: number): Place {
  const own = join(directory, String(index));
  mkdirSync(own);
  return { image: new Image(join(own, "disk.img"), size, contents), check: new Check(checker, own) };
}

async function examine(
  subject: Subject,
  options: ExploreOptions,
  { state, finding }: Failed,
): Promise<Found> {
  const { from, shrinkTime, signal } = options;
  const bench = Bench.at(subject, from, ({ index }) => index === state.epoch.index);
  const abort = (): void => bench.check.kill();
  signal.addEventListener("abort", abort);
  try {
    const deadline = performance.now() + shrinkTime;
    const isOver = (): boolean => signal.aborted || performance.now() >= deadline;
    const fault = await shrinkFault(bench, state.choice, isOver);
    // The image as the power failure leaves it, before the checker has written to it.
    bench.image.discard();
    bench.load(fault === undefined ? state.choice : fault.choice);
    return { number: state.number, mark: state.epoch.mark, fault, finding: fault?.finding ?? finding };
  } finally {
    signal.removeEventListener("abort", abort);
    bench.close();
  }
}
