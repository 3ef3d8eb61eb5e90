/** The command line of scripts/bench.ts. */
import { parseArgs } from "node:util";
import { describeError, Failure } from "../lib/failure.ts";
import { SUITES, type SuiteName } from "./results.ts";

export const USAGE = `usage: bun run bench [native] [kernel] [async] [options]

Measures tsbuse beside other servers of block devices, in turn, and prints medians, ratios and spreads. A run of whole
suites is kept in bench/results.json, from which the charts in bench/ and the tables in bench/README.md and README.md
are made.

  native          the binary on a Unix socket, beside nbdkit, qemu-nbd and nbd-server, under a load generator, with
                  its own loop in C as a ceiling
  kernel          /dev/nbdN under fio in the virtual machine, with the kernel's own RAM disk and loop as ceilings
  async           what promises cost a module
  --rounds N      rounds that are counted (default 5; 2 with --quick, 3 with --guard)
  --seconds S     how long each measurement counts (default 1; 0.5 with --quick or --guard)
  --quick         few cells
  --filter REGEXP only cells whose GROUP/CELL matches, as in "memory/randread-4k"
  --seed N        of the random offsets (default 1)
  --json FILE     keep the results there, even of a part of a suite, and leave the project's own as they are
  --guard         few cells; fail if a ratio to the best peer is a quarter below that of bench/results.json
  --render        measure nothing; make the charts and the tables from bench/results.json
  --help          print this

A trial of about a minute, which keeps only try.json:

  bun run bench native --rounds 1 --seconds 0.2 --json try.json
`;

/** What to measure, and how. */
export interface Plan {
  readonly rounds: number;
  readonly seconds: number;
  readonly seed: number;
  readonly quick: boolean;
  readonly filter: RegExp | undefined;
  /** Whether to measure memory and the time to readiness as well. */
  readonly footprints: boolean;
}

export type Task =
  | { readonly kind: "help" }
  | { readonly kind: "render" }
  | { readonly kind: "guard"; readonly suites: readonly SuiteName[]; readonly plan: Plan }
  | {
      readonly kind: "measure";
      readonly suites: readonly SuiteName[];
      readonly plan: Plan;
      readonly json: string | undefined;
      /** Whether the run replaces the project's own results. */
      readonly keep: boolean;
    };

/** @throws Failure with exit status 2 */
export function parseOptions(words: readonly string[]): Task {
  const { values, positionals } = parse(words);
  if (values.help) return { kind: "help" };
  if (values.render) return { kind: "render" };
  const wrong = positionals.find((word) => !SUITES.some((name) => name === word));
  if (wrong !== undefined) throw usageError(`unknown suite "${wrong}": choose from ${SUITES.join(", ")}`);
  const suites = SUITES.filter((name) => positionals.length === 0 || positionals.includes(name));
  const short = values.quick || values.guard;
  const filter = regExp(values.filter);
  const plan: Plan = {
    rounds: number(
      "--rounds",
      values.rounds ?? (values.guard ? "3" : values.quick ? "2" : "5"),
      /^[1-9]\d?$/,
    ),
    seconds: number("--seconds", values.seconds ?? (short ? "0.5" : "1"), /^(?!0+$)\d{1,3}(\.\d+)?$/),
    seed: number("--seed", values.seed, /^\d{1,9}$/),
    quick: short,
    filter,
    footprints: filter === undefined && !values.guard,
  };
  if (values.guard) {
    if (values.json !== undefined) throw usageError("--guard keeps no results: leave out --json");
    // The suite of promises has no peer to compare with.
    return { kind: "guard", suites: suites.filter((name) => name !== "async"), plan };
  }
  const keep = values.json === undefined && !short && filter === undefined;
  return { kind: "measure", suites, plan, json: values.json, keep };
}

function parse(words: readonly string[]) {
  try {
    return parseArgs({
      args: [...words],
      allowPositionals: true,
      options: {
        rounds: { type: "string" },
        seconds: { type: "string" },
        seed: { type: "string", default: "1" },
        quick: { type: "boolean", default: false },
        filter: { type: "string" },
        json: { type: "string" },
        guard: { type: "boolean", default: false },
        render: { type: "boolean", default: false },
        help: { type: "boolean", default: false },
      },
    });
  } catch (error) {
    throw usageError(describeError(error).split(". ", 1)[0] ?? "");
  }
}

function number(name: string, text: string, shape: RegExp): number {
  if (!shape.test(text)) throw usageError(`${name} "${text}" is invalid`);
  return Number(text);
}

function regExp(text: string | undefined): RegExp | undefined {
  try {
    return text === undefined ? undefined : new RegExp(text);
  } catch (error) {
    throw usageError(`--filter: ${describeError(error)}`);
  }
}

function usageError(message: string): Failure {
  return new Failure(`${message}; see bun run bench --help`, 2);
}
