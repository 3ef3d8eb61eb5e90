/** The command line of scripts/torture.ts. */
import { parseArgs } from "node:util";
import { anySeed, SEED_MAX } from "../../src/values/random.ts";
import { describeError, Failure } from "../lib/failure.ts";
import { ACTS, BACKINGS, KINDS, LOADS, type PlanOptions, type Transport, TRANSPORTS } from "./plan.ts";

export const USAGE = `usage: bun run torture [options]

Kills, stops, freezes, disconnects, fills up, reloads and recovers devices in use, and looks for what was lost or left
behind. Runs dist/tsbuse in the virtual machine, and ends at the first fault with exit status 1.

  --minutes N        begin no step after N minutes (default 10, unless --steps is given)
  --steps N          run at most N steps
  --first N          begin with step N (default 1)
  --seed N           the seed of the steps (default: a random one, which is printed)
  --transport NAME   only nbd, ublk or server
  --without KIND     leave out steps of a kind; may be repeated. One of
                     ${wrapped(KINDS, 96).join(",\n                     ")}
  --plant FAULT      plant a fault in the device, lie or leak, to see that the torture finds it
  --keep-going       after a fault, clean up and go on with the next step
  --plan             print the steps, and do nothing
  --help             print this

Logs are kept in dist/torture.
`;

/** The faults that --plant knows. */
const FAULTS = ["lie", "leak"] as const;
/** `lie` drops one write in a thousand, `leak` leaves a file open after one in ten. */
export type Planted = (typeof FAULTS)[number];

export interface TortureOptions extends PlanOptions {
  /** Absent: no limit. */
  readonly minutes?: number | undefined;
  /** Absent: as many as fit into the time. */
  readonly steps?: number | undefined;
  readonly first: number;
  readonly plant?: Planted | undefined;
  readonly keepGoing: boolean;
}

export type Task =
  | { readonly kind: "help" }
  | { readonly kind: "plan" | "run"; readonly options: TortureOptions };

const DEFAULT_MINUTES = 10;
const STEPS_MAX = 1_000_000;
const MINUTES_MAX = 7 * 24 * 60;

/** @throws Failure with exit status 2 */
export function parseOptions(words: readonly string[]): Task {
  const values = parse(words);
  if (values.help) return { kind: "help" };
  const steps = wholeNumber("steps", values.steps, 1, STEPS_MAX);
  const minutes = wholeNumber("minutes", values.minutes, 1, MINUTES_MAX);
  const options: TortureOptions = {
    seed: wholeNumber("seed", values.seed, 0, SEED_MAX) ?? anySeed(),
    minutes: minutes ?? (steps === undefined ? DEFAULT_MINUTES : undefined),
    steps,
    first: wholeNumber("first", values.first, 1, STEPS_MAX) ?? 1,
    transport: values.transport === undefined ? undefined : oneOf("transport", values.transport, TRANSPORTS),
    without: values.without.map((word) => oneOf("without", word, KINDS)),
    keepGoing: values["keep-going"],
    plant: values.plant === undefined ? undefined : oneOf("plant", values.plant, FAULTS),
  };
  if (isAllLeftOut(options)) throw usageError("nothing is left to do: leave out less");
  return { kind: values.plan ? "plan" : "run", options };
}

/** The command that repeats `steps` steps from step `first` on. */
export function repeatLine(options: TortureOptions, first: number, steps: number): string {
  const { seed, transport, without, plant } = options;
  const words = ["--seed", seed, ...(first === 1 ? [] : ["--first", first]), "--steps", steps];
  if (transport !== undefined) words.push("--transport", transport);
  for (const word of without) words.push("--without", word);
  if (plant !== undefined) words.push("--plant", plant);
  return `bun run torture ${words.join(" ")}`;
}

function parse(words: readonly string[]) {
  try {
    return parseArgs({
      args: [...words],
      options: {
        minutes: { type: "string" },
        steps: { type: "string" },
        first: { type: "string" },
        seed: { type: "string" },
        transport: { type: "string" },
        without: { type: "string", multiple: true, default: [] },
        plant: { type: "string" },
        "keep-going": { type: "boolean", default: false },
        plan: { type: "boolean", default: false },
        help: { type: "boolean", default: false },
      },
    }).values;
  } catch (error) {
    throw usageError(describeError(error).split(". ", 1)[0] ?? "");
  }
}

/** Whether no step is left: all transports, acts, backings or loads are left out. */
function isAllLeftOut({ transport, without }: PlanOptions): boolean {
  const transports: readonly Transport[] = transport === undefined ? TRANSPORTS : [transport];
  const none = (kinds: readonly string[]): boolean => kinds.every((kind) => without.includes(kind));
  return none(transports) || none(ACTS) || none(BACKINGS) || none(LOADS);
}

function wholeNumber(name: string, text: string | undefined, min: number, max: number): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= min && value <= max) return value;
  throw usageError(`--${name} "${text}" is not a whole number from ${min} to ${max}`);
}

function oneOf<Word extends string>(name: string, text: string, words: readonly Word[]): Word {
  const word = words.find((each) => each === text);
  if (word === undefined) throw usageError(`unknown --${name} "${text}": choose from ${words.join(", ")}`);
  return word;
}

function usageError(message: string): Failure {
  return new Failure(`${message}; see bun run torture --help`, 2);
}

/** Wraps words into lines of at most `columns`. */
function wrapped(words: readonly string[], columns: number): string[] {
  const lines = [""];
  for (const word of words) {
    const line = lines.at(-1) ?? "";
    if (line.length + word.length + 2 > columns) lines.push(word);
    else lines[lines.length - 1] = line === "" ? word : `${line}, ${word}`;
  }
  return lines;
}
