/** The strictness that citty leaves out: options it does not know, values left out, arguments too many or too few. */
import { parseArgs, type ParseArgsOptionsConfig } from "node:util";
import type { ArgsDef } from "citty";
import type { Command } from "../command.ts";
import { nearest } from "../nearest.ts";
import { parserOptions } from "../parser-options.ts";
import { isRepeatable } from "./parser.ts";
import { UsageError } from "../usage-error.ts";

/** @throws UsageError naming the argument that is wrong. */
export function checkArguments(command: Command, rawArgs: readonly string[]): void {
  const { name, synopsis } = command.text;
  const options = parserOptions(command.args);
  const { tokens } = parseArgs({
    args: [...rawArgs],
    options,
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const end = tokens.find(({ kind }) => kind === "option-terminator")?.index ?? rawArgs.length;
  const positionals: string[] = [];
  const seen = new Set<string>();
  for (const token of tokens) {
    if (token.kind === "positional" && (token.index < end || command.text.rest === undefined))
      positionals.push(token.value);
    if (token.kind !== "option") continue;
    // `-5M` is read as a bundle of options.
    if (/^\d$/.test(token.name)) {
      throw new UsageError(`${rawArgs[token.index]} is negative: give a size above zero, such as 512M`);
    }
    checkOption(command, options, token.name, token.rawName, token.value);
    if (seen.has(token.name) && !isRepeatable(command.args[token.name]))
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

function checkOption(
  command: Command,
  options: ParseArgsOptionsConfig,
  name: string,
  rawName: string,
  value: string | undefined,
): void {
  const option = Object.hasOwn(options, name) ? options[name] : undefined;
  if (option === undefined) {
    const guess = nearest(name, Object.keys(options));
    const hint =
      guess === undefined ? `see "tsbuse ${command.text.name} --help"` : `did you mean --${guess}?`;
    throw new UsageError(`unknown option ${rawName}: ${hint}`);
  }
  if (option.type === "string" && (value === undefined || value === "")) {
    throw new UsageError(`${rawName} needs a value: give ${rawName} ${valueHint(command.args, name)}`);
  }
  if (option.type === "boolean" && value !== undefined) {
    throw new UsageError(`${rawName} takes no value: leave out "=${value}"`);
  }
}

export function valueHint(args: ArgsDef, name: string): string {
  return args[name]?.valueHint ?? "VALUE";
}

/** How many positional arguments a synopsis such as `[SIZE] TARGET` allows. */
function positionalCount(synopsis: string): { least: number; most: number } {
  const words = synopsis.split(" ").filter((word) => word !== "");
  return { least: words.filter((word) => !word.startsWith("[")).length, most: words.length };
}
