import { checkDevice, type CheckReport, type MakeDevice } from "../../check/check.ts";
import { UserError } from "../../errors.ts";
import { applyLayers } from "../../layers/layer.ts";
import { anySeed, SEED_MAX } from "../../values/random.ts";
import { command } from "../command.ts";
import { deviceMaker, DEVICES } from "../device-maker.ts";
import { printResult } from "../log.ts";
import { flag, option, optional, positional } from "../options/argument.ts";
import { LAYER } from "../options/layers.ts";
import { splitAtRest } from "../options/words.ts";
import { count } from "../options/values.ts";
import { shellWord } from "../text.ts";

const OPS_DEFAULT = 1000;
const OPS_MAX = 10_000_000;

export default command(
  {
    name: "check",
    summary: "Try to break a device before a file system does",
    synopsis: "MODULE [ARGUMENT]",
    rest: "KEY=VALUE",
    details: [
      "Asks a device of your own, or one of ramdisk SIZE, loop FILE and deadbeef [SIZE], for everything that a system could ask: random ranges and those at the edges, neighbours and overlaps, trims and zeroes, FUA and flush, many at once if it returns promises, and again after it was closed. Nothing is attached, and it needs no root.",
      "If something is wrong, the shortest sequence of requests that shows it is printed, the exit status is 1, and the same --seed finds it again.",
    ],
    examples: [
      { line: "tsbuse check ./mydisk.ts -- size=64M", does: "a device of your own, with an option for it" },
      {
        line: "tsbuse check ramdisk 64M --layer cow",
        does: "a layer, over a device that is known to be right",
      },
      { line: "tsbuse check loop scratch.img --destroy", does: "a file, whose contents are lost" },
    ],
  },
  {
    device: positional("A .ts or .js file, or one of ramdisk, loop and deadbeef", { words: DEVICES }),
    argument: optional("SIZE of ramdisk and deadbeef, FILE of loop"),
    seed: option({
      valueHint: "N",
      description: "Repeat the requests of an earlier run (default: random)",
      parse: count(0, SEED_MAX),
    }),
    ops: option({
      valueHint: "N",
      description: `How many requests to try (default ${OPS_DEFAULT})`,
      parse: count(1, OPS_MAX),
    }),
    persistent: flag("Expect what was flushed to be there when the device is closed and made anew"),
    crash: flag("Drop the device now and then: expect what was flushed, and no more, when it is made anew"),
    destroy: flag("Overwrite the contents of the FILE of loop"),
    stack: LAYER,
  },
  async ({ device: name, argument, destroy, crash, stack, ...args }, words) => {
    const { seed = anySeed(), ops = OPS_DEFAULT } = args;
    const isSpared = stack.sparesDevice;
    const makeDevice = deviceMaker({ by: "check", name, argument, words, mayDestroy: destroy, isSpared });
    const make: MakeDevice = async () => applyLayers(await makeDevice(), stack.layers);
    await tryOut(make);
    const persistent = args.persistent || crash || (name === "loop" && stack.layers.length === 0);
    const report = await checkDevice(make, { seed, ops, persistent, crash });
    return print(report, repeatWords(words, report));
  },
);

/** A device that cannot be created is not a finding: its error says what is wrong. */
async function tryOut(make: MakeDevice): Promise<void> {
  const device = await make();
  await device.close?.();
}

/** The command line that finds the same fault again. */
function repeatWords(words: readonly string[], { seed, ops }: CheckReport): string {
  const { own, rest } = splitAtRest(words);
  const kept = own.filter((word, index) => {
    const isValue = /^--(?:seed|ops)$/.test(own[index - 1] ?? "");
    return !isValue && !/^--(?:seed|ops)(?:=|$)/.test(word);
  });
  const again = ["tsbuse", "check", ...kept, "--seed", String(seed), "--ops", String(ops), ...rest];
  return again.map(shellWord).join(" ");
}

function print({ seed, ops, failure }: CheckReport, repeat: string): number {
  if (failure === undefined) return printResult(`no fault found: ${ops} operations, seed ${seed}`);
  const width = String(failure.steps.length).length;
  const steps = failure.steps.map((step, index) => `${String(index + 1).padStart(width)}. ${step}`);
  printResult([...steps, `repeat: ${repeat}`].join("\n"));
  throw new UserError(`the check found a fault with seed ${seed}: ${failure.message.replaceAll("\n", " ")}`);
}
