import type { ParseArgsOptionsConfig } from "node:util";
import type { ArgsDef } from "citty";

/** The options of a command in the form of node:util's parser. */
export function parserOptions(args: ArgsDef): ParseArgsOptionsConfig {
  const options: ParseArgsOptionsConfig = {};
  for (const [name, definition] of Object.entries(args)) {
    if (definition.type === "positional") continue;
    const alias = "alias" in definition ? [definition.alias ?? []].flat() : [];
    const short = alias.find((each) => each.length === 1);
    options[name] = {
      type: definition.type === "boolean" ? "boolean" : "string",
      ...(short !== undefined && { short }),
    };
  }
  return options;
}
