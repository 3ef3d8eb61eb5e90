/** Options that may be given several times, which citty does not know: it would keep the last one. */
import { parseArgs } from "node:util";
import type { ArgDef, ArgsDef } from "citty";
import { parserOptions } from "../parser-options.ts";

/** Joins the values of such an option. No argument of a program can contain it. */
const SEPARATOR = "\0";

/** Marked with `repeatable: true` beside what citty knows. */
export function isRepeatable(definition: ArgDef | undefined): boolean {
  return definition !== undefined && "repeatable" in definition && definition.repeatable === true;
}

/** The command line with each repeatable option given once, for {@link repeatedValues} to take apart. */
export function joinRepeated(args: ArgsDef, rawArgs: readonly string[]): string[] {
  const names = Object.keys(args).filter((name) => isRepeatable(args[name]));
  return names.reduce((words, name) => joinOne(args, words, name), [...rawArgs]);
}

/** The values in the order in which they were given. */
export function repeatedValues(joined: string | undefined): readonly string[] {
  return joined === undefined ? [] : joined.split(SEPARATOR);
}

function joinOne(args: ArgsDef, rawArgs: readonly string[], name: string): string[] {
  const { tokens } = parseArgs({
    args: [...rawArgs],
    options: parserOptions(args),
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const values: string[] = [];
  const taken = new Set<number>();
  for (const token of tokens) {
    if (token.kind !== "option" || token.name !== name || token.value === undefined) continue;
    values.push(token.value);
    taken.add(token.index);
    if (token.inlineValue === false) taken.add(token.index + 1);
  }
  if (values.length === 0) return [...rawArgs];
  return [`--${name}=${values.join(SEPARATOR)}`, ...rawArgs.filter((_, index) => !taken.has(index))];
}
