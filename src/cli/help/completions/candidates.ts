/** What may stand where on the command line: common to the completion scripts of all shells. */
import type { Command } from "../../command.ts";
import { GENERAL_OPTIONS, type Option, type Positional, positionals } from "../documentation.ts";

/** Where candidates come from: the file system, /sys/block, or a list. Nothing is offered for a size. */
export interface Source {
  /** What the synopsis calls it: `TARGET`. */
  readonly label: string;
  readonly files: boolean;
  /** The nodes to attach to, or those to disconnect. */
  readonly nodes: "free" | "attached" | undefined;
  readonly words: readonly string[];
}

const FILE_LABELS: ReadonlySet<string> = new Set(["FILE", "MODULE", "ARGUMENT"]);

/** What can be the first word, besides a command. */
export const FIRST_WORDS: readonly string[] = ["help", ...GENERAL_OPTIONS.flatMap(spellings)];

/** `--verbose` and `-v`. */
export function spellings({ name, short }: Option): string[] {
  return short === undefined ? [`--${name}`] : [`--${name}`, `-${short}`];
}

/** What can be at each position after the command: several things where an argument may be left out. */
export function positionSources(command: Command): Source[][] {
  const all = positionals(command);
  return all.map((_, position) => {
    const certain = all.findIndex((each, index) => index >= position && !each.optional);
    const end = certain < 0 ? all.length : certain + 1;
    return all.slice(position, end).map((each) => positionalSource(command, each));
  });
}

function positionalSource(command: Command, positional: Positional): Source {
  const { name, choices } = positional;
  const attaches = command.text.kind === "device";
  if (name !== "TARGET")
    return { label: name, files: FILE_LABELS.has(name), nodes: undefined, words: choices };
  return {
    label: name,
    files: false,
    nodes: attaches ? "free" : "attached",
    words: attaches ? ["auto", "ublk", "nbd"] : [],
  };
}

/** Whether the value of an option is the name of a file. */
export function takesFile(option: Option): boolean {
  return option.value !== undefined && FILE_LABELS.has(option.value);
}
