import type { GivenOptions } from "../../values/option-table.ts";
import { UsageError } from "../usage-error.ts";

/** The `KEY=VALUE` words after `--`. @throws UsageError */
export function parseModuleOptions(rawArgs: readonly string[]): GivenOptions {
  const end = rawArgs.indexOf("--");
  const words = end < 0 ? [] : rawArgs.slice(end + 1);
  const options = new Map<string, string>();
  for (const word of words) {
    const [, key, value] = /^([^=]+)=(.*)$/s.exec(word) ?? [];
    if (key === undefined || value === undefined) {
      throw new UsageError(`"${word}" is no option for the module: give KEY=VALUE after --`);
    }
    if (options.has(key)) throw new UsageError(`${key} is given twice after --: give it once`);
    options.set(key, value);
  }
  return Object.fromEntries(options);
}
