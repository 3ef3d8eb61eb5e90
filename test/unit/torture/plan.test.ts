/** Goal: the steps of a torture follow from its seed alone, make sense, and leave no kind out. */
import { describe, expect, test } from "bun:test";
import { parseOptions, repeatLine } from "../../../scripts/torture/options.ts";
import {
  ACTS,
  BACKINGS,
  LOADS,
  type PlanOptions,
  type Step,
  stepsFrom,
  TRANSPORTS,
} from "../../../scripts/torture/plan.ts";
import { Failure } from "../../../scripts/lib/failure.ts";

const COUNT = 400;

function steps(options: Partial<PlanOptions> = {}, first = 1, count = COUNT): Step[] {
  return stepsFrom(first, { seed: 7, without: [], ...options })
    .take(count)
    .toArray();
}

describe("the plan", () => {
  test("is the same for the same seed, and another one for another", () => {
    expect(steps()).toEqual(steps());
    expect(steps({ seed: 8 })).not.toEqual(steps());
  });

  test("goes on alike from any step, whatever is left out", () => {
    const all = steps();
    expect(steps({}, 100, 10)).toEqual(all.slice(99, 109));
    const rest = steps({ without: ["kill", "cow"], transport: "ublk" }, 1, 20);
    for (const step of rest) expect(step).toEqual(all[step.number - 1] ?? step);
    const wanted = all.filter(
      (step) => step.transport === "ublk" && step.act !== "kill" && step.backing !== "cow",
    );
    expect(rest).toEqual(wanted.slice(0, 20));
  });

  test("has every kind", () => {
    const all = steps();
    const kinds = (of: (step: Step) => string): string[] => [...new Set(all.map(of))].toSorted();
    expect(kinds(({ act }) => act)).toEqual(ACTS.toSorted());
    expect(kinds(({ transport }) => transport)).toEqual(TRANSPORTS.toSorted());
    expect(kinds(({ backing }) => backing)).toEqual(BACKINGS.toSorted());
    expect(kinds(({ load }) => load)).toEqual(LOADS.toSorted());
    expect(kinds(({ queues }) => String(queues))).toEqual(["1", "2"]);
  });

  test.each([
    [
      "no file system lies on a socket",
      ({ transport, load }: Step) => transport === "server" && load === "files",
    ],
    ["a RAM disk is not recovered", ({ act, backing }: Step) => act === "recover" && backing === "ramdisk"],
    ["what recovers is a node", ({ act, transport }: Step) => act === "recover" && transport === "server"],
    [
      "a mounted device is not disconnected",
      ({ act, load }: Step) => act === "disconnect" && load === "files",
    ],
    [
      "a module has one thread, and so has a server",
      ({ queues, backing, transport }: Step) =>
        queues > 1 && (transport === "server" || /^(module|promises|cow)$/.test(backing)),
    ],
  ] as const)("%s", (_, isWrong) => expect(steps().filter(isWrong)).toEqual([]));
});

describe("the command line", () => {
  test("repeats what it was told", () => {
    const task = parseOptions(
      "--seed 9 --first 3 --steps 4 --transport nbd --without cow --without kill --plant lie".split(" "),
    );
    if (task.kind !== "run") throw new Error(task.kind);
    const words = repeatLine(task.options, task.options.first, 4).split(" ").slice(3);
    expect(parseOptions(words)).toEqual(task);
  });

  test.each([
    [["--seed", "1.5"], '--seed "1.5" is not a whole number from 0 to 4294967295'],
    [["--minutes", "0"], '--minutes "0" is not a whole number from 1 to 10080'],
    [["--without", "rain"], 'unknown --without "rain": choose from calm, delay, kill, '],
    [["--transport", "ublk", "--without", "ublk"], "nothing is left to do: leave out less"],
    [["loop"], "Unexpected argument 'loop'"],
  ])("%p is refused", (words, message) => {
    expect(() => parseOptions(words)).toThrow(Failure);
    expect(() => parseOptions(words)).toThrow(message);
  });
});
