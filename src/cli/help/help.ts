/** `tsbuse --help` and `tsbuse COMMAND --help`: plain text in at most 80 columns. */
import type { Command, Example } from "../command.ts";
import { allCommands } from "../commands.ts";
import { LAYER_TEXTS, type LayerText } from "../options/layers.ts";
import {
  EXIT_STATUSES,
  GENERAL_OPTIONS,
  HELP_OPTION,
  leadingExamples,
  type Option,
  ownOptions,
  positionals,
  SERVING_OPTIONS,
  TAGLINE,
  usageLine,
} from "./documentation.ts";

const COLUMNS = 80;
const INDENT = 2;
/** Blanks between a term and its meaning. */
const GAP = 2;
/** A longer term gets its own line, so that it does not push all the others to the right. */
const TERM_MAX = 24;

type Entry = readonly [term: string, meaning: string];

/** What tsbuse is and which commands it has. */
export async function rootHelp(): Promise<string> {
  const commands = await allCommands();
  const ofKind = (kind: "device" | "tool"): Entry[] =>
    commands
      .filter(({ text }) => text.kind === kind)
      .map(({ text }) => [`${text.name} ${text.synopsis}`.trimEnd(), text.summary]);
  return [
    `tsbuse: ${TAGLINE}`,
    "Usage: tsbuse COMMAND [options] [arguments]",
    block("Devices", ofKind("device")),
    block("Tools", ofKind("tool")),
    servingBlocks(),
    block("Other options", GENERAL_OPTIONS.map(optionEntry)),
    block("Exit status", EXIT_STATUSES),
    exampleBlock(leadingExamples(commands)),
    `More: "tsbuse COMMAND --help", and all of it with "tsbuse man | man -l -".`,
  ].join("\n\n");
}

/** The help of one command: first what only this command has. */
export function commandHelp(command: Command): string {
  const { name, summary, kind, details, examples } = command.text;
  return [
    `tsbuse ${name}: ${summary}`,
    `Usage: ${usageLine(command)}`,
    block(
      "Arguments",
      positionals(command).map((each): Entry => [each.name, each.description]),
    ),
    block("Options", [...ownOptions(command), HELP_OPTION].map(optionEntry)),
    ...details.map((paragraph) => wrap(paragraph, 0)),
    exampleBlock(examples),
    kind === "device" ? servingBlocks() : "",
    block("Layers", "layer" in command.args ? LAYER_TEXTS.map(layerEntry) : []),
  ]
    .filter((part) => part !== "")
    .join("\n\n");
}

function servingBlocks(): string {
  const groups = SERVING_OPTIONS.map(([title, options]) => [title, options.map(optionEntry)] as const);
  const column = columnOf(groups.flatMap(([, entries]) => entries));
  return [
    "Options of every device:",
    ...groups.map(([title, entries]) => block(title, entries, column)),
  ].join("\n\n");
}

function layerEntry({ usage, summary }: LayerText): Entry {
  return [usage, summary];
}

function optionEntry(option: Option): Entry {
  const short = option.short === undefined ? "" : `-${option.short}, `;
  const value = option.value === undefined ? "" : ` ${option.value}`;
  return [`${short}--${option.name}${value}`, option.description];
}

/** A heading and a table of two columns; nothing when there are no entries. */
function block(heading: string, entries: readonly Entry[], column = columnOf(entries)): string {
  if (entries.length === 0) return "";
  const rows = entries.map(([term, meaning]) => {
    const text = wrap(meaning, column);
    const start = `${" ".repeat(INDENT)}${term}`;
    return start.length + GAP > column ? `${start}\n${text}` : start.padEnd(column) + text.trimStart();
  });
  return [`${heading}:`, ...rows].join("\n");
}

/** The column where the meanings begin. */
function columnOf(entries: readonly Entry[]): number {
  const terms = entries.map(([term]) => term.length).filter((length) => length <= TERM_MAX);
  return INDENT + Math.max(0, ...terms) + GAP;
}

/** Command lines are never broken, so that they can be copied. */
function exampleBlock(examples: readonly Example[]): string {
  if (examples.length === 0) return "";
  return ["Examples:", ...examples.map(({ line, does }) => `  ${line}\n${wrap(does, 6)}`)].join("\n");
}

/** Breaks a paragraph into lines, each indented. */
function wrap(text: string, indent: number): string {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && indent + line.length + 1 + word.length > COLUMNS) {
      lines.push(line);
      line = word;
    } else {
      line = line === "" ? word : `${line} ${word}`;
    }
  }
  return [...lines, line].map((each) => " ".repeat(indent) + each).join("\n");
}
