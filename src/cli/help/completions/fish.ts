/** Completion for fish 3 and newer. */
import type { Command } from "../../command.ts";
import { allOptions, GENERAL_OPTIONS, HELP_OPTION, type Option } from "../documentation.ts";
import { positionSources, type Source, takesFile } from "./candidates.ts";

export function fishCompletion(commands: readonly Command[]): string {
  const names = commands.map(({ text }) => text.name);
  const valued = commands.flatMap(allOptions).filter(({ value }) => value !== undefined);
  return `# fish completion for tsbuse. For this shell: tsbuse completions fish | source
# For all: put it into ~/.config/fish/completions/tsbuse.fish

# Nodes that are "free", or "attached".
function __tsbuse_nodes --argument-names wanted
    for directory in /sys/block/nbd* /sys/block/ublkb*
        set -l state free
        if test -e $directory/pid; or test (cat $directory/size) != 0
            set state attached
        end
        if test $state = $wanted
            string replace /sys/block/ /dev/ $directory
        end
    end
end

# Whether the command line is one of this command.
function __tsbuse_command --argument-names command
    set -l words (commandline -opc)
    test (count $words) -ge 2; and test $words[2] = $command
end

# Whether the cursor is at this argument of this command, counted from 0, options aside.
function __tsbuse_at --argument-names command position
    __tsbuse_command $command; or return 1
    set -l words (commandline -opc)
    set -e words[1]
    set -e words[1]
    set -l arguments 0
    set -l value no
    for word in $words
        if test $value = yes
            set value no
        else if contains -- $word ${[...new Set(valued.map(({ name }) => `--${name}`))].join(" ")}
            set value yes
        else if not string match --quiet -- '-*' $word
            set arguments (math $arguments + 1)
        end
    end
    test $value = no; and test $arguments -eq $position
end

complete -c tsbuse -f
${GENERAL_OPTIONS.map((option) => optionLine("__fish_use_subcommand", option)).join("\n")}
complete -c tsbuse -n __fish_use_subcommand -a help -d 'Show the help of a command'
complete -c tsbuse -n '__tsbuse_at help 0' -a ${quoted(names.join(" "))}
${commands.map(commandLines).join("\n")}`;
}

function commandLines(command: Command): string {
  const { name, summary } = command.text;
  return [
    "",
    `complete -c tsbuse -n __fish_use_subcommand -a ${name} -d ${quoted(summary)}`,
    ...[...allOptions(command), HELP_OPTION].map((option) =>
      optionLine(quoted(`__tsbuse_command ${name}`), option),
    ),
    ...positionSources(command).flatMap((sources, position) =>
      sources.flatMap((source) => sourceLines(quoted(`__tsbuse_at ${name} ${position}`), source)),
    ),
  ].join("\n");
}

function optionLine(condition: string, option: Option): string {
  const { name, short, value, description } = option;
  // -x: the value is not a file name; -r -F: it is.
  const valueFlags = takesFile(option) ? " -r -F" : " -x";
  return [
    `complete -c tsbuse -n ${condition} -l ${name}`,
    short === undefined ? "" : ` -s ${short}`,
    value === undefined ? "" : valueFlags,
    option.words.length === 0 ? "" : ` -a ${quoted(option.words.join(" "))}`,
    ` -d ${quoted(description)}`,
  ].join("");
}

function sourceLines(condition: string, { files, nodes, words }: Source): string[] {
  return [
    ...(files ? [`complete -c tsbuse -n ${condition} -F`] : []),
    ...(nodes === undefined ? [] : [`complete -c tsbuse -n ${condition} -a '(__tsbuse_nodes ${nodes})'`]),
    ...(words.length === 0 ? [] : [`complete -c tsbuse -n ${condition} -a ${quoted(words.join(" "))}`]),
  ];
}

/** Within single quotes fish has two escapes. */
function quoted(text: string): string {
  return `'${text.replaceAll(/[\\']/g, (character) => `\\${character}`)}'`;
}
