import { CHECKERS } from "../../crash/checkers.ts";
import type { Checker } from "../../crash/checker.ts";
import { SECTOR } from "../../record/format.ts";
import { SEED_MAX } from "../../values/random.ts";
import { ErrnoError, UserError } from "../../errors.ts";
import { command } from "../command.ts";
import { crash } from "../crash/explore.ts";
import { log } from "../log.ts";
import { anyText, option, positional } from "../options/argument.ts";
import { blockSize } from "../options/serving.ts";
import { count } from "../options/values.ts";
import { shellWord } from "../text.ts";
import { UsageError } from "../usage-error.ts";

const NUMBER_MAX = 2 ** 31;
const DRIVERS: readonly string[] = ["auto", "nbd", "ublk"];

export default command(
  {
    name: "crash",
    summary: "Try the states of a disk after a power failure",
    synopsis: "RECORD",
    details: [
      'RECORD is what "--layer record:file=RECORD" has kept of a disk in use. tsbuse builds from it the states in which a power failure could have left the disk, at any moment: everything that was flushed, and any part of the rest, in any order, torn between any two sectors (--sector). COMMAND judges each state. It gets the disk as a file, $TSBUSE_IMAGE, which it may change, an empty directory $TSBUSE_SCRATCH, and in $TSBUSE_MARK the text of the last "tsbuse mark" before the failure. Any exit status but 0 is a fault. With --device it also gets the same disk as a block device, $TSBUSE_DEVICE, to mount or to write to: changes there do not show in the file. Whatever COMMAND mounts or starts ends with it.',
      "States come in this order: at each moment, what was flushed and nothing more; everything; some by rule; then random ones. No two are alike. A state with a fault is reduced to the fewest lost writes that still show the fault. These are printed, the disk is saved as an image, and the exit status is 1. It is 2 when states could not be tried. The same --seed gives the same states.",
      "COMMAND may be one of these: ext4, xfs, btrfs (the file system on the disk), sqlite:PATH (a database in an ext4 file system), postgres:PATH (a data directory). xfs and postgres mount the image and need root.",
      "--base is the disk as it was before the record began; without it the disk was empty. The checker must find nothing wrong with it, nor with the disk at the mark of --after.",
    ],
    examples: [
      {
        line: "tsbuse crash disk.record --base disk.img --check ext4",
        does: "is the file system ever damaged?",
      },
      {
        line: `tsbuse crash disk.record --after ready --check ./check.sh --minutes 10`,
        does: "states after a mark, judged by a program",
      },
    ],
  },
  {
    record: positional("A file that the record layer has made"),
    check: option({
      valueHint: "COMMAND",
      description: "The command that judges $TSBUSE_IMAGE",
      words: Object.keys(CHECKERS),
      parse: parseChecker,
    }),
    base: option({
      valueHint: "IMAGE",
      description: "The disk before the record (default: zeroes)",
      parse: anyText,
    }),
    after: option({
      valueHint: "TEXT",
      description: "Only try power failures after this mark",
      parse: anyText,
    }),
    sector: option({
      valueHint: "BYTES",
      description: "What the disk writes as a whole or not at all: 512 (default), 1024, 2048 or 4096",
      parse: blockSize,
    }),
    states: option({
      valueHint: "N",
      description: "How many states to try (default 1000, or as many as --minutes allows)",
      parse: count(1, NUMBER_MAX),
    }),
    minutes: option({ valueHint: "N", description: "For how long to try", parse: count(1, 100_000) }),
    seed: option({
      valueHint: "N",
      description: "Repeat the states of an earlier run (default: random)",
      parse: count(0, SEED_MAX),
    }),
    state: option({ valueHint: "N", description: "Try this one alone", parse: count(1, NUMBER_MAX) }),
    jobs: option({
      valueHint: "N",
      description: "Checkers at once (default: processors)",
      parse: count(1, 1024),
    }),
    device: option({
      valueHint: "DRIVER",
      description: "Give each state as a block device as well, by ublk, nbd, or auto for either (needs root)",
      words: DRIVERS,
      parse: parseDriver,
    }),
    timeout: option({
      valueHint: "SECONDS",
      description: "A checker that takes longer has found a fault (default 60)",
      parse: count(1, 100_000),
    }),
    continue: option({
      valueHint: "FILE",
      description: "Continue the run that FILE describes; create FILE if it is missing",
      parse: anyText,
    }),
    save: option({
      valueHint: "IMAGE",
      description: "Where to put the disk that is wrong (default RECORD.fault)",
      parse: anyText,
    }),
  },
  async ({ check, timeout = 60, sector = SECTOR, save, continue: continued, ...args }, words) => {
    if (check === undefined)
      throw new UsageError("what is to be found? give --check COMMAND, or --check ext4");
    return orTrouble(
      crash({
        ...args,
        continued,
        sector,
        checker: check,
        timeoutMs: timeout * 1000,
        save: save ?? `${args.record}.fault`,
        repeat: (seed, state) => repeatWords(words, seed, state),
      }),
    );
  },
);

/** As with cmp(1) and diff(1): 1 means only that something was found. */
const STATUS_TROUBLE = 2;

async function orTrouble(status: Promise<number>): Promise<number> {
  try {
    return await status;
  } catch (error) {
    if (!(error instanceof UserError) && !(error instanceof ErrnoError)) throw error;
    log.error(error.message);
    return STATUS_TROUBLE;
  }
}

/** @throws UsageError */
function parseDriver(text: string): string {
  if (DRIVERS.includes(text)) return text;
  throw new UsageError(`--device "${text}" is invalid: give auto, nbd or ublk`);
}

/** The name of a ready-made checker, or any command. @throws UsageError */
function parseChecker(text: string): Checker {
  const [name = "", ...rest] = text.split(":");
  const readyMade = Object.hasOwn(CHECKERS, name) ? CHECKERS[name] : undefined;
  if (readyMade === undefined) return { command: text };
  const argument = rest.join(":");
  if (readyMade.argument !== undefined && argument === "")
    throw new UsageError(`--check ${name} needs to know where: give ${name}:${readyMade.argument}`);
  if (readyMade.argument === undefined && rest.length > 0)
    throw new UsageError(`--check ${name} takes nothing more: leave out ":" and all after it`);
  return readyMade.make(argument);
}

/** The command line that tries one state again. */
function repeatWords(words: readonly string[], seed: number, state: number): string {
  const replaced = /^--(?:seed|states|state|minutes|continue)(=|$)/;
  const kept = words.filter((word, index) => {
    const before = words[index - 1] ?? "";
    return !replaced.test(word) && !(replaced.test(before) && !before.includes("="));
  });
  return ["tsbuse", "crash", ...kept, "--seed", String(seed), "--state", String(state)]
    .map(shellWord)
    .join(" ");
}
