/** What may appear where on the command line: common to the completion scripts of all shells. */
import type { Command } from "../../command.ts";
import { GENERAL_OPTIONS, type Option, type Positional, positionals } from "../documentation.ts";

/** Where candidates come from: the file system, /sys/block, or a list. A size has none. */
export interface Source {
  /** Its name in the synopsis: `TARGET`. */
  readonly label: string;
  readonly files: boolean;
  /** Nodes to attach to, or nodes to disconnect. */
  readonly nodes: "free" | "attached" | undefined;
  readonly words: readonly string[];
}

const FILE_LABELS: ReadonlySet<string> = new Set(["FILE", "MODULE", "ARGUMENT"]);

/** Possible first words, besides commands. */
export const FIRST_WORDS: readonly string[] = ["help", ...GENERAL_OPTIONS.flatMap(spellings)];

/** `--verbose` and `-v`. */
export function spellings({ name, short }: Option): string[] {
  return short === undefined ? [`--${name}`] : [`--${name}`, `-${short}`];
}

/** Candidates for each position after the command: several sources where an argument is optional. */
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

/** Whether the value of an option is a file name. */
export function takesFile(option: Option): boolean {
  return option.value !== undefined && FILE_LABELS.has(option.value);
}
