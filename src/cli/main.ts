/** The command line, from its words to an exit status: 0 is success, 1 a failure, 2 an invalid command line. */
import { ErrnoError, messageOf, UserError } from "../errors.ts";
import { COMMANDS, isCommandName } from "./commands.ts";
import { commandHelp, rootHelp } from "./help/help.ts";
import { versionAnswer } from "./help/version.ts";
import { finishLog, log, printResult, writeError } from "./log.ts";
import { checkArguments } from "./options/strict.ts";
import { splitAtRest } from "./options/words.ts";
import { didYouMean, UsageError } from "./usage-error.ts";

/** Runs a command line. Reports every failure, which no other code does. */
export async function main(words: readonly string[]): Promise<number> {
  try {
    return await run(words);
  } catch (error) {
    if (error instanceof UsageError) {
      log.error(error.message);
      return 2;
    }
    if (error instanceof UserError) {
      log.error(error.message);
      return 1;
    }
    if (error instanceof ErrnoError) {
      log.error(`${error.message}: see "tsbuse doctor"`);
      return 1;
    }
    const stack = error instanceof Error ? error.stack : undefined;
    log.error(`internal error, please report it with "tsbuse doctor": ${messageOf(error)}`);
    if (stack !== undefined) writeError(stack);
    return 1;
  } finally {
    await finishLog();
  }
}

async function run(words: readonly string[]): Promise<number> {
  const [name, ...rest] = words;
  if (name === undefined) {
    writeError(await rootHelp());
    return 2;
  }
  const isAlone = rest.length === 0;
  if (isAlone && ["--help", "-h", "help"].includes(name)) return printResult(await rootHelp());
  const version = versionAnswer(words);
  if (version !== undefined) return printResult(version);
  if (name === "help") return run([...rest, "--help"]);
  if (!isCommandName(name)) throw new UsageError(unknownCommand(name));
  const command = await COMMANDS[name]();
  if (wantsHelp(rest)) return printResult(commandHelp(command));
  if (command.forwards !== true) checkArguments(command, rest);
  return command.execute(rest);
}

/** `--help` anywhere before a `--`. */
function wantsHelp(words: readonly string[]): boolean {
  const { own } = splitAtRest(words);
  return own.includes("--help") || own.includes("-h");
}

function unknownCommand(name: string): string {
  if (["--version", "-V"].includes(name)) return `${name} takes only --verbose: leave out what follows`;
  if (["--help", "-h"].includes(name)) return `${name} takes no arguments: leave out what follows`;
  if (name.startsWith("-")) return `unknown option ${name}: see "tsbuse --help"`;
  return `unknown command "${name}": ${didYouMean(name, Object.keys(COMMANDS), 'see "tsbuse --help"')}`;
}
