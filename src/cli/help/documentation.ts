/**
 * A command's documentation in parts, for the help, the man page and the shell completions. Also the documentation that
 * does not belong to a single command.
 */
import packageJson from "../../../package.json" with { type: "json" };
import type { Command, Example } from "../command.ts";
import { type ArgumentTable, byName } from "../options/argument.ts";
import { SERVING, SERVING_GROUPS } from "../options/serving.ts";

/** An option as it is typed: `-v, --verbose`, or `--block-size BYTES`. */
export interface Option {
  readonly name: string;
  readonly short: string | undefined;
  /** The placeholder for its value; undefined when it takes none. */
  readonly value: string | undefined;
  /** The words that its value can be, or begin with, if there are only a few. */
  readonly words: readonly string[];
  readonly repeatable: boolean;
  readonly description: string;
}

export interface Positional {
  /** Its name in the synopsis: `SIZE`. */
  readonly name: string;
  readonly optional: boolean;
  readonly description: string;
  /** The words it can be, if there are only a few. */
  readonly choices: readonly string[];
}

export const TAGLINE = "a Linux block device whose reads and writes are answered by a program";

/** The version in package.json, which is built into the binary. */
export const VERSION: string = packageJson.version;

/** Works with each command, and without one. */
export const HELP_OPTION: Option = {
  name: "help",
  short: "h",
  value: undefined,
  words: [],
  repeatable: false,
  description: "Show this help",
};

/** The options of the program itself. */
export const GENERAL_OPTIONS: readonly Option[] = [
  HELP_OPTION,
  {
    ...HELP_OPTION,
    name: "version",
    short: "V",
    description: "Show the version; with --verbose the build too",
  },
];

export const EXIT_STATUSES: readonly (readonly [status: string, meaning: string])[] = [
  ["0", "Success. With --run: the status of its command"],
  ["1", "A failure. One line on stderr names the cause and the remedy"],
  ["2", "A wrong command line. Nothing has been changed"],
];

/** The options that every device command has, in groups with titles. */
export const SERVING_OPTIONS: readonly (readonly [title: string, options: readonly Option[]])[] =
  SERVING_GROUPS.map(([title, keys]) => [
    title,
    optionsOf(byName(Object.fromEntries(keys.map((key) => [key, SERVING[key]])))),
  ]);

/** A device command's options that not every device command has; all options of another command. */
export function ownOptions(command: Command): readonly Option[] {
  if (command.text.kind !== "device") return allOptions(command);
  const shared = new Set<unknown>(Object.values(SERVING));
  const own = Object.entries(command.args).filter(([, definition]) => !shared.has(definition));
  return optionsOf(Object.fromEntries(own));
}

export function allOptions(command: Command): readonly Option[] {
  return optionsOf(command.args);
}

/** The positional arguments. Their names are the words of the synopsis, in the same order. */
export function positionals(command: Command): readonly Positional[] {
  const words = command.text.synopsis.split(" ");
  const definitions = Object.values(command.args).filter(({ type }) => type === "positional");
  return definitions.map(({ description, words: choices = [] }, index) => {
    const word = words[index] ?? "";
    return {
      name: word.replaceAll(/[[\]]/g, ""),
      optional: word.startsWith("["),
      description,
      choices,
    };
  });
}

/** `tsbuse ramdisk [options] SIZE TARGET`. */
export function usageLine({ text }: Command): string {
  const rest = text.rest === undefined ? "" : `[-- ${text.rest}...]`;
  return ["tsbuse", text.name, "[options]", text.synopsis, rest].filter((word) => word !== "").join(" ");
}

/** The first example of each device: what most people look for. */
export function leadingExamples(commands: readonly Command[]): readonly Example[] {
  return commands
    .filter(({ text }) => text.kind === "device")
    .flatMap(({ text }) => text.examples.slice(0, 1));
}

function optionsOf(args: ArgumentTable): readonly Option[] {
  const options = Object.entries(args).filter(([, { type }]) => type !== "positional");
  return options.map(([name, { alias, valueHint, words = [], repeatable = false, description }]) => ({
    name,
    short: alias,
    value: valueHint,
    words,
    repeatable,
    description,
  }));
}
