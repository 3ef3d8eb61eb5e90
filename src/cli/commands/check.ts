import { Deadbeef } from "../../../devices/deadbeef.ts";
import { Loop } from "../../../devices/loop.ts";
import { Ramdisk } from "../../../devices/ramdisk.ts";
import { checkDevice, type CheckReport, type MakeDevice } from "../../check/check.ts";
import { UserError } from "../../errors.ts";
import { applyLayers } from "../../layers/layer.ts";
import { UserModule } from "../../module/load.ts";
import { anySeed, SEED_MAX } from "../../values/random.ts";
import { command } from "../command.ts";
import { printResult } from "../log.ts";
import { flag, option, optional, positional } from "../options/argument.ts";
import { LAYER } from "../options/layers.ts";
import { parseModuleOptions, splitAtRest } from "../options/words.ts";
import { count, parseBlocks } from "../options/values.ts";
import { shellWord } from "../text.ts";
import { didYouMean, UsageError } from "../usage-error.ts";
import { ramdiskSize } from "./ramdisk.ts";

/** Those that have a name. */
const DEVICES = ["ramdisk", "loop", "deadbeef"] as const;

const OPS_DEFAULT = 1000;
const OPS_MAX = 10_000_000;

export default command(
  {
    name: "check",
    summary: "Try to break a device before a file system does",
    synopsis: "MODULE [ARGUMENT]",
    rest: "KEY=VALUE",
    details: [
      "Asks a device of your own, or one of ramdisk SIZE, loop FILE and deadbeef [SIZE], for all that a system could ask: random ranges and those at the edges, neighbours and overlaps, trims and zeroes, FUA and flush, many at once if it returns promises, and again after it was closed. Nothing is attached, and no root is needed.",
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
      description: "The same requests as another time (default: any)",
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
    const makeDevice = deviceMaker({ name, argument, words, mayDestroy: destroy, isSpared });
    const make: MakeDevice = async () => applyLayers(await makeDevice(), stack.layers);
    await tryOut(make);
    const persistent = args.persistent || crash || (name === "loop" && stack.layers.length === 0);
    const report = await checkDevice(make, { seed, ops, persistent, crash });
    return print(report, repeatWords(words, report));
  },
);

interface Wanted {
  readonly name: string;
  readonly argument: string | undefined;
  readonly words: readonly string[];
  readonly mayDestroy: boolean;
  /** A layer keeps changes from the device. */
  readonly isSpared: boolean;
}

/** @throws UsageError */
function deviceMaker(wanted: Wanted): MakeDevice {
  const { name, argument } = wanted;
  if (name === "ramdisk") {
    const size = ramdiskSize(needed(argument, "ramdisk SIZE"));
    return () => new Ramdisk(size);
  }
  if (name === "deadbeef") {
    const size = parseBlocks(argument ?? "64M", "SIZE");
    return () => new Deadbeef(size);
  }
  if (name === "loop") return loopMaker(wanted, needed(argument, "loop FILE"));
  return moduleMaker(wanted);
}

function loopMaker({ mayDestroy, isSpared }: Wanted, path: string): MakeDevice {
  if (!mayDestroy && !isSpared) {
    throw new UsageError(
      `the check would overwrite ${path}: add --destroy if that may be, or --layer cow to keep it as it is`,
    );
  }
  return () => new Loop(path, { readOnly: isSpared });
}

function moduleMaker({ name, argument, words }: Wanted): MakeDevice {
  if (!/[./]/.test(name)) {
    const remedy = didYouMean(name, DEVICES, "give ramdisk, loop, deadbeef or the path of a module");
    throw new UsageError(`unknown device "${name}": ${remedy}`);
  }
  if (argument !== undefined) {
    throw new UsageError(
      `unexpected argument "${argument}": give a module its options after --, as KEY=VALUE`,
    );
  }
  const options = parseModuleOptions(words);
  const module = new UserModule(name);
  return () => module.load(options);
}

function needed(argument: string | undefined, usage: string): string {
  if (argument !== undefined) return argument;
  throw new UsageError(`an argument is missing: give tsbuse check ${usage}`);
}

/** A device that cannot be made at all is no finding: its error says what is wrong. */
async function tryOut(make: MakeDevice): Promise<void> {
  const device = await make();
  await device.close?.();
}

/** The command line that finds the same again. */
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
