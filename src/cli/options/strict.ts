/** The checks that citty lacks: unknown options, missing values, too many or too few arguments. */
import type { Command } from "../command.ts";
import { nearest, UsageError } from "../usage-error.ts";
import { tokensOf } from "./words.ts";

/** @throws UsageError naming the invalid argument. */
export function checkArguments(command: Command, words: readonly string[]): void {
  const { name, synopsis } = command.text;
  const tokens = tokensOf(command.args, words);
  const end = tokens.find(({ kind }) => kind === "option-terminator")?.index ?? words.length;
  const positionals: string[] = [];
  const seen = new Set<string>();
  for (const token of tokens) {
    if (token.kind === "positional" && (token.index < end || command.text.rest === undefined))
      positionals.push(token.value);
    if (token.kind !== "option") continue;
    // `-5M` is read as a bundle of options.
    if (/^\d$/.test(token.name)) {
      throw new UsageError(`${words[token.index]} is negative: give a size above zero, such as 512M`);
    }
    checkOption(command, token.name, token.rawName, token.value);
    if (seen.has(token.name) && command.args[token.name]?.repeatable !== true)
      throw new UsageError(`${token.rawName} is given twice: give it once`);
    seen.add(token.name);
  }
  const { least, most } = positionalCount(synopsis);
  const extra = positionals[most];
  if (extra !== undefined) {
    throw new UsageError(
      `unexpected argument "${extra}": tsbuse ${name} takes ${synopsis || "no arguments"}`,
    );
  }
  if (positionals.length < least) {
    throw new UsageError(`an argument is missing: tsbuse ${name} takes ${synopsis}`);
  }
}

function checkOption(command: Command, name: string, rawName: string, value: string | undefined): void {
  const option = Object.hasOwn(command.args, name) ? command.args[name] : undefined;
  if (option === undefined || option.type === "positional")
    throw new UsageError(unknown(command, name, rawName));
  if (option.type === "string" && (value === undefined || value === "")) {
    throw new UsageError(`${rawName} needs a value: give ${rawName} ${option.valueHint}`);
  }
  if (option.type === "boolean" && value !== undefined) {
    throw new UsageError(`${rawName} takes no value: leave out "=${value}"`);
  }
}

function unknown({ args, text }: Command, name: string, rawName: string): string {
  const names = Object.keys(args).filter((each) => args[each]?.type !== "positional");
  const guess = nearest(name, names);
  const remedy = guess === undefined ? `see "tsbuse ${text.name} --help"` : `did you mean --${guess}?`;
  return `unknown option ${rawName}: ${remedy}`;
}

/** How many positional arguments a synopsis such as `[SIZE] TARGET` allows. */
function positionalCount(synopsis: string): { least: number; most: number } {
  const words = synopsis.split(" ").filter((word) => word !== "");
  return { least: words.filter((word) => !word.startsWith("[")).length, most: words.length };
}
