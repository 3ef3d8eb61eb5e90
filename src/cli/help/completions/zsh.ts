/** Completion for zsh, with its _arguments. */
import type { Command } from "../../command.ts";
import { singleQuoted } from "../../text.ts";
import { allOptions, GENERAL_OPTIONS, HELP_OPTION, type Option } from "../documentation.ts";
import { positionSources, type Source, takesFile } from "./candidates.ts";

export function zshCompletion(commands: readonly Command[]): string {
  const described = commands.map(({ text }) =>
    singleQuoted(`${text.name}:${text.summary.replaceAll(":", "\\:")}`),
  );
  return `#compdef tsbuse
# zsh completion for tsbuse. For this shell: source <(tsbuse completions zsh)
# For all: put it as _tsbuse into a directory of $fpath

# Nodes that are "free", or "attached", and further words.
_tsbuse_nodes() {
  local directory state
  local -a found
  found=("\${@[2,-1]}")
  for directory in /sys/block/nbd*(N) /sys/block/ublkb*(N); do
    state=free
    if [[ -e $directory/pid || "$(<$directory/size)" != 0 ]]; then state=attached; fi
    if [[ $state == $1 ]]; then found+=("/dev/\${directory:t}"); fi
  done
  compadd -a found
}

_tsbuse() {
  local curcontext="$curcontext" state state_descr line
  local -a commands context
  local -A opt_args
  commands=(
${described.map((each) => `    ${each}`).join("\n")}
    'help:Show the help of a command'
  )
  _arguments -C \\
${GENERAL_OPTIONS.map((option) => `    ${alone(optionSpec(option))} \\`).join("\n")}
    '1:command:->command' \\
    '*::argument:->argument'
  case $state in
    command) _describe -t commands command commands ;;
    argument)
      case $words[1] in
${commands.map(commandCase).join("\n")}
        help) _arguments '1:command:(${commands.map(({ text }) => text.name).join(" ")})' ;;
      esac
      ;;
  esac
}

# Run as the completion itself when it was loaded by name, else only made known.
if [[ "\${funcstack[1]-}" == _tsbuse ]]; then
  _tsbuse "$@"
else
  compdef _tsbuse tsbuse
fi`;
}

/** Nothing else goes with these options: `(- *)` replaces the list of what they exclude. */
function alone(spec: string): string {
  return spec.replace(/^'\([^)]*\)'/, "'(- *)'");
}

function commandCase(command: Command): string {
  const specs = [
    ...[...allOptions(command), HELP_OPTION].map(optionSpec),
    ...positionSources(command).map(positionSpec),
  ];
  return `        ${command.text.name})
          _arguments \\
${specs.map((spec) => `            ${spec}`).join(" \\\n")}
          ;;`;
}

/** `'--run[Run a command]:COMMAND: '`, or `'(-v --verbose)'{-v,--verbose}'[…]'`. */
function optionSpec(option: Option): string {
  const { name, short, value, description } = option;
  const text = description.replaceAll(/[\\[\]:]/g, (character) => `\\${character}`);
  const words = option.words.length === 0 ? " " : `(${option.words.join(" ")})`;
  const action = takesFile(option) ? "_files" : words;
  const rest = `[${text}]${value === undefined ? "" : `:${value}:${action}`}`;
  // With the equals sign the value can be in the same word or in the next.
  const long = value === undefined ? `--${name}` : `--${name}=`;
  if (short === undefined) return singleQuoted(`${option.repeatable ? "*" : ""}${long}${rest}`);
  return `'(-${short} --${name})'{-${short},${long}}${singleQuoted(rest)}`;
}

/** `'2:TARGET:_tsbuse_nodes free auto'`. */
function positionSpec(sources: readonly Source[], position: number): string {
  const label = sources.map((source) => source.label).join(" or ");
  return singleQuoted(
    `${position + 1}:${label}:${sources.map(sourceAction).find((action) => action !== "") ?? " "}`,
  );
}

function sourceAction({ files, nodes, words }: Source): string {
  if (files) return "_files";
  // The leading blank: otherwise _arguments adds its own options for compadd.
  if (nodes !== undefined) return [" _tsbuse_nodes", nodes, ...words].join(" ");
  return words.length === 0 ? "" : `(${words.join(" ")})`;
}
