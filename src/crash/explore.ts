/** Tries states, several at once, until one fails or time is up. */
import { Bench } from "./bench.ts";
import type { Finding } from "./checker.ts";
import { type Fault, shrinkFault } from "./fault.ts";
import { Place, type Subject } from "./place.ts";
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
  /** Milliseconds for reducing a finding. */
  readonly shrinkTime: number;
  readonly signal: AbortSignal;
  /** Called after each state that was tried. All states up to number `done` have been tried. */
  readonly progress: (tried: number, done: number) => void;
}

export interface Exploration {
  readonly tried: number;
  /** The number up to which all states have been tried. */
  readonly done: number;
  /** No other states exist. */
  readonly isComplete: boolean;
  readonly found: Found | undefined;
  /** The exception that prevented further tries: a later run can continue after `done`. */
  readonly trouble: unknown;
}

export interface Found {
  /** The number of the state. */
  readonly number: number;
  readonly mark: string | undefined;
  /** Undefined if the fault did not happen again. */
  readonly fault: Fault | undefined;
  readonly finding: Finding;
  /** The path of the image as the power failure leaves it. */
  readonly image: string;
}

interface Failed {
  readonly state: State;
  readonly finding: Finding;
}

/** @throws UserError if there is no place in which to try states. */
export async function explore(subject: Subject, options: ExploreOptions): Promise<Exploration> {
  const places = await openPlaces(subject, options.jobs);
  const run = new Run(subject, options, places);
  await run.all().finally(() => closePlaces(places));
  const { tried, isComplete, failed } = run;
  if (failed === undefined)
    return { tried, done: run.done, isComplete, found: undefined, trouble: run.trouble };
  try {
    const found = await examine(subject, options, failed);
    return { tried, done: found.number - 1, isComplete, found, trouble: undefined };
  } catch (trouble) {
    return { tried, done: failed.state.number - 1, isComplete, found: undefined, trouble };
  }
}

async function openPlaces(subject: Subject, jobs: number): Promise<Place[]> {
  const places: Place[] = [];
  try {
    for (let index = 0; index < jobs; index += 1) places.push(await Place.open(subject, String(index)));
    return places;
  } catch (error) {
    await closePlaces(places);
    throw error;
  }
}

/** Closes all of them, even if one fails to close. @throws UserError */
async function closePlaces(places: readonly Place[]): Promise<void> {
  const ends = await Promise.allSettled(places.map((place) => place.close()));
  const failed = ends.find((end) => end.status === "rejected");
  if (failed !== undefined) throw failed.reason;
}

class Run {
  tried = 0;
  isComplete = false;
  failed: Failed | undefined;
  trouble: unknown;
  readonly #states: Iterator<State>;
  readonly #underWay = new Set<number>();
  #last: number;

  constructor(
    readonly subject: Subject,
    readonly options: ExploreOptions,
    readonly places: readonly Place[],
  ) {
    this.#last = options.first - 1;
    this.#states = statesOf(subject.history, subject.contents, {
      ...options,
      changed: (sector) => {
        for (const { image } of places) image.outdate(sector);
      },
    });
  }

  /** The number up to which all states have been tried. */
  get done(): number {
    return Math.min(this.#last, ...[...this.#underWay].map((number) => number - 1));
  }

  async all(): Promise<void> {
    const kill = (): void => this.#kill();
    this.options.signal.addEventListener("abort", kill);
    try {
      await Promise.all(this.places.map((place) => this.#work(place)));
    } finally {
      this.options.signal.removeEventListener("abort", kill);
    }
  }

  #kill(): void {
    for (const place of this.places) place.kill();
  }

  get #isOver(): boolean {
    return this.options.signal.aborted || this.trouble !== undefined;
  }

  /** A state whose checker was interrupted does not count. */
  async #work(place: Place): Promise<void> {
    try {
      for (;;) {
        const state = this.#next();
        if (state === undefined) return;
        const finding = await place.try(state.disk, state.difference, state.epoch.mark);
        if (this.#isOver) return;
        this.#underWay.delete(state.number);
        this.tried += 1;
        if (finding !== undefined) this.#fail({ state, finding });
        this.options.progress(this.tried, this.done);
      }
    } catch (error) {
      this.trouble ??= error;
      this.#kill();
    }
  }

  /** The next state to try; undefined if the run is over. */
  #next(): State | undefined {
    const { deadline, first, last } = this.options;
    while (this.failed === undefined && this.#last < last && performance.now() < deadline && !this.#isOver) {
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

  /** Keeps the failure with the lowest number, so that the report does not depend on timing. */
  #fail(failed: Failed): void {
    if (this.failed === undefined || failed.state.number < this.failed.state.number) this.failed = failed;
  }
}

async function examine(
  subject: Subject,
  options: ExploreOptions,
  { state, finding }: Failed,
): Promise<Found> {
  const { from, shrinkTime, signal } = options;
  const bench = await Bench.at(subject, from, ({ index }) => index === state.epoch.index);
  const abort = (): void => bench.place.kill();
  signal.addEventListener("abort", abort);
  try {
    const fault = await shrinkFault(bench, state.choice, shrinkTime, signal);
    const image = bench.load(fault === undefined ? state.choice : fault.choice);
    return { number: state.number, mark: state.epoch.mark, fault, finding: fault?.finding ?? finding, image };
  } finally {
    signal.removeEventListener("abort", abort);
    await bench.close();
  }
}
