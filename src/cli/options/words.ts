/** Splits the words of a command line into options, options that may be repeated, and what follows `--`. */
import { parseArgs, type ParseArgsOptionsConfig } from "node:util";
import type { GivenOptions } from "../../values/option-table.ts";
import { UsageError } from "../usage-error.ts";
import type { ArgumentTable } from "./argument.ts";

/** Joins the values of a repeated option, because citty keeps only the last. No argument can contain this character. */
const SEPARATOR = "\0";

/** Options as the parser sees them, known or not, and positional arguments. */
export function tokensOf(args: ArgumentTable, words: readonly string[]) {
  const options = parserOptions(args);
  return parseArgs({ args: [...words], options, strict: false, allowPositionals: true, tokens: true }).tokens;
}

/** The options of a command, in the parser's form. */
function parserOptions(args: ArgumentTable): ParseArgsOptionsConfig {
  const options = Object.entries(args).filter(([, { type }]) => type !== "positional");
  return Object.fromEntries(
    options.map(([name, { type, alias }]) => [
      name,
      { type: type === "boolean" ? "boolean" : "string", ...(alias !== undefined && { short: alias }) },
    ]),
  );
}

/** The command line with each repeatable option given once; {@link splitRepeated} splits it. */
export function joinRepeated(args: ArgumentTable, words: readonly string[]): string[] {
  const names = Object.keys(args).filter((name) => args[name]?.repeatable === true);
  return names.reduce((joined, name) => joinOne(args, joined, name), [...words]);
}

/** The values in the order they were given. */
export function splitRepeated(joined: string): readonly string[] {
  return joined.split(SEPARATOR);
}

function joinOne(args: ArgumentTable, words: readonly string[], name: string): string[] {
  const values: string[] = [];
  const taken = new Set<number>();
  for (const token of tokensOf(args, words)) {
    if (token.kind !== "option" || token.name !== name || token.value === undefined) continue;
    values.push(token.value);
    taken.add(token.index);
    if (token.inlineValue === false) taken.add(token.index + 1);
  }
  if (values.length === 0) return [...words];
  return [`--${name}=${values.join(SEPARATOR)}`, ...words.filter((_, index) => !taken.has(index))];
}

/** Splits the words of the command itself from the rest, from `--` on. */
export function splitAtRest(words: readonly string[]): { own: readonly string[]; rest: readonly string[] } {
  const end = words.indexOf("--");
  return end < 0 ? { own: words, rest: [] } : { own: words.slice(0, end), rest: words.slice(end) };
}

/** The `KEY=VALUE` words after `--`. @throws UsageError */
export function parseModuleOptions(words: readonly string[]): GivenOptions {
  const options = new Map<string, string>();
  for (const word of splitAtRest(words).rest.slice(1)) {
    const [, key, value] = /^([^=]+)=(.*)$/s.exec(word) ?? [];
    if (key === undefined || value === undefined) {
      throw new UsageError(`"${word}" is no option for the module: give KEY=VALUE after --`);
    }
    if (options.has(key)) throw new UsageError(`${key} is given twice after --: give it once`);
    options.set(key, value);
  }
  return Object.fromEntries(options);
}
