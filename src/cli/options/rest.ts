/** What follows after `--`: the options of a module. */
import type { GivenOptions } from "../../values/option-table.ts";
import { UsageError } from "../usage-error.ts";

/** The words of the command itself, and the rest from `--` on. */
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
