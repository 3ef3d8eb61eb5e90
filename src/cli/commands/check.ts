import { Deadbeef } from "../../../devices/deadbeef.ts";
import { Loop } from "../../../devices/loop.ts";
import { Ramdisk, RAMDISK_SIZE_MAX, RAMDISK_SIZE_MIN } from "../../../devices/ramdisk.ts";
import { checkDevice, type CheckReport, type MakeDevice } from "../../check/check.ts";
import { DEFAULT_BLOCK_SIZE } from "../../device.ts";
import { UserError } from "../../errors.ts";
import { applyLayers } from "../../layers/layer.ts";
import { UserModule } from "../../module/load.ts";
import { anySeed, SEED_MAX } from "../../values/random.ts";
import { command } from "../command.ts";
import { LAYER_ARG, parseLayers } from "../options/layers.ts";
import { printResult, writeLine } from "../log.ts";
import { parseModuleOptions } from "../options/rest.ts";
import { nearest } from "../nearest.ts";
import { repeatedValues } from "../options/parser.ts";
import { shellWord } from "../shell-word.ts";
import { parseBlocks, parseCount } from "../options/values.ts";
import { UsageError } from "../usage-error.ts";

const OPS_DEFAULT = 1000;
const OPS_MAX = 10_000_000;

export default command(
  {
    name: "check",
    kind: "tool",
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
    device: {
      type: "positional",
      required: true,
      valueHint: "ramdisk|loop|deadbeef",
      description: "A .ts or .js file, or one of ramdisk, loop and deadbeef",
    },
    argument: {
      type: "positional",
      required: false,
      description: "SIZE of ramdisk and deadbeef, FILE of loop",
    },
    seed: { type: "string", valueHint: "N", description: "The same requests as another time (default: any)" },
    ops: { type: "string", valueHint: "N", description: `How many requests to try (default ${OPS_DEFAULT})` },
    persistent: {
      type: "boolean",
      description: "Expect what was flushed to be there when the device is closed and made anew",
    },
    destroy: { type: "boolean", description: "Overwrite the contents of the FILE of loop" },
    layer: LAYER_ARG,
  },
  async (args, rawArgs) => {
    const seed = args.seed === undefined ? anySeed() : parseCount(args.seed, "--seed", 0, SEED_MAX);
    const ops = args.ops === undefined ? OPS_DEFAULT : parseCount(args.ops, "--ops", 1, OPS_MAX);
    const stack = parseLayers(args.layer, (line) => writeLine(2, line));
    const makeDevice = deviceMaker({
      name: args.device,
      argument: args.argument,
      rawArgs,
      mayDestroy: args.destroy === true,
      isSpared: stack.sparesDevice,
    });
    const make: MakeDevice = async () => applyLayers(await makeDevice(), stack.layers);
    await tryOut(make);
    const persistent = args.persistent === true || (args.device === "loop" && stack.layers.length === 0);
    const report = await checkDevice(make, { seed, ops, persistent });
    return print(report, repeatWords(rawArgs, args.layer, report));
  },
);

interface Wanted {
  readonly name: string;
  readonly argument: string | undefined;
  readonly rawArgs: readonly string[];
  readonly mayDestroy: boolean;
  /** A layer keeps changes from the device. */
  readonly isSpared: boolean;
}

/** @throws UsageError */
function deviceMaker(wanted: Wanted): MakeDevice {
  const { name, argument } = wanted;
  if (name === "ramdisk") {
    const size = parseBlocks(needed(argument, "ramdisk SIZE"), "SIZE", DEFAULT_BLOCK_SIZE);
    if (size < RAMDISK_SIZE_MIN || size > RAMDISK_SIZE_MAX) {
      throw new UsageError(`SIZE ${argument} cannot be: give a size from 4K to 1T`);
    }
    return () => new Ramdisk(size);
  }
  if (name === "deadbeef") {
    const size = parseBlocks(argument ?? "64M", "SIZE", DEFAULT_BLOCK_SIZE);
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

function moduleMaker({ name, argument, rawArgs }: Wanted): MakeDevice {
  if (!/[./]/.test(name)) {
    const guess = nearest(name, ["ramdisk", "loop", "deadbeef"]);
    const remedy =
      guess === undefined
        ? "give ramdisk, loop, deadbeef or the path of a module"
        : `did you mean "${guess}"?`;
    throw new UsageError(`unknown device "${name}": ${remedy}`);
  }
  if (argument !== undefined) {
    throw new UsageError(
      `unexpected argument "${argument}": give a module its options after --, as KEY=VALUE`,
    );
  }
  const options = parseModuleOptions(rawArgs);
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
function repeatWords(rawArgs: readonly string[], layers: string | undefined, report: CheckReport): string {
  const end = rawArgs.includes("--") ? rawArgs.indexOf("--") : rawArgs.length;
  const own = rawArgs.slice(0, end).filter((word, index, all) => {
    const isValue = /^--(?:seed|ops)$/.test(all[index - 1] ?? "");
    return !isValue && !/^--(?:seed|ops|layer)(?:=|$)/.test(word);
  });
  const layerWords = repeatedValues(layers).flatMap((layer) => ["--layer", layer]);
  const seedWords = ["--seed", String(report.seed), "--ops", String(report.ops)];
  const words = ["tsbuse", "check", ...own, ...layerWords, ...seedWords, ...rawArgs.slice(end)];
  return words.map(shellWord).join(" ");
}

function print({ seed, ops, failure }: CheckReport, repeat: string): number {
  if (failure === undefined) return printResult(`no fault found: ${ops} operations, seed ${seed}`);
  const width = String(failure.steps.length).length;
  const steps = failure.steps.map((step, index) => `${String(index + 1).padStart(width)}. ${step}`);
  printResult([...steps, `repeat: ${repeat}`].join("\n"));
  throw new UserError(`the check found a fault with seed ${seed}: ${failure.message.replaceAll("\n", " ")}`);
}
