/** Completion for bash 4 and newer, without the bash-completion package. */
import type { Command } from "../../command.ts";
import { allOptions, HELP_OPTION, type Option } from "../documentation.ts";
import { FIRST_WORDS, positionSources, type Source, spellings, takesFile } from "./candidates.ts";

/** The beginning of the script, with the functions that `_tsbuse` calls. */
const HELPERS = `# bash completion for tsbuse. For this shell: source <(tsbuse completions bash)
# For all: put it into /usr/share/bash-completion/completions/tsbuse

# Replies with those of the words that begin with the first one.
_tsbuse_words() {
  local word
  for word in "\${@:2}"; do
    if [[ $word == "$1"* ]]; then COMPREPLY+=("$word"); fi
  done
}

_tsbuse_files() {
  local file
  compopt -o filenames 2>/dev/null
  while IFS= read -r file; do COMPREPLY+=("$file"); done < <(compgen -f -- "$1")
}

# Nodes that are "free", or "attached".
_tsbuse_nodes() {
  local directory state
  for directory in /sys/block/nbd* /sys/block/ublkb*; do
    if [[ ! -r $directory/size ]]; then continue; fi
    state=free
    if [[ -e $directory/pid || $(<"$directory/size") != 0 ]]; then state=attached; fi
    if [[ $state == "$2" ]]; then _tsbuse_words "$1" "/dev/\${directory##*/}"; fi
  done
}`;

/** A part of `_tsbuse`: sets `given`, `awaiting`, `part`, `position` and `current`. */
const READ_WORDS = `  # The words before the current one. bash splits --option=value in three, and name:key=value in five.
  for ((index = 2; index < COMP_CWORD; index++)); do
    word=\${COMP_WORDS[index]}
    if [[ $word == = || $word == : ]]; then
      if [[ -z $awaiting ]]; then part=yes; fi
    elif [[ -n $part ]]; then
      part=
    elif [[ -n $awaiting ]]; then
      awaiting=
    elif [[ $word == -* ]]; then
      if [[ " $repeatable " != *" $word "* ]]; then given+="$word "; fi
      if [[ " $valued " == *" $word "* ]]; then awaiting=$word; fi
    else
      position=$((position + 1))
    fi
  done
  current=\${COMP_WORDS[COMP_CWORD]}
  if [[ $current == = ]]; then current=; fi`;

export function bashCompletion(commands: readonly Command[]): string {
  const names = commands.map(({ text }) => text.name);
  const worded = unique(commands.flatMap(allOptions).filter(({ words }) => words.length > 0));
  const fileOptions = commands.flatMap(allOptions).filter(takesFile).map(longName);
  return `${HELPERS}

_tsbuse() {
  local command=\${COMP_WORDS[1]} current='' given=' ' position=0
  local awaiting='' # the option that the next word is the value of
  local part='' # whether the next word is the rest of the one before
  local options valued repeatable word index
  COMPREPLY=()
  if ((COMP_CWORD < 2)); then
    _tsbuse_words "$command" ${[...names, ...FIRST_WORDS].join(" ")}
    return
  fi
  case $command in
${commands.map(optionsCase).join("\n")}
    help) ;;
    *) return ;;
  esac

${READ_WORDS}

  if [[ -n $part || $current == : ]]; then
    return
  elif [[ -n $awaiting ]]; then
    case $awaiting in
      ${[...new Set(fileOptions)].join(" | ")}) _tsbuse_files "$current" ;;
${worded.map(wordsCase).join("\n")}
    esac
  elif [[ $current == -* ]]; then
    for word in $options; do
      if [[ $given != *" $word "* ]]; then _tsbuse_words "$current" "$word"; fi
    done
  else
    case $command/$position in
${commands.flatMap(positionCases).join("\n")}
      help/0) _tsbuse_words "$current" ${names.join(" ")} ;;
    esac
  fi
}

complete -F _tsbuse tsbuse`;
}

function longName(option: Option): string {
  return `--${option.name}`;
}

function optionsCase(command: Command): string {
  const options = [...allOptions(command), HELP_OPTION];
  const names = options.flatMap(spellings);
  const valued = options.filter(({ value }) => value !== undefined).map(longName);
  const repeatable = options.filter((option) => option.repeatable).map(longName);
  return `    ${command.text.name}) options='${names.join(" ")}' valued='${valued.join(" ")}' repeatable='${repeatable.join(" ")}' ;;`;
}

/** Drops duplicate names: commands share options. */
function unique(options: readonly Option[]): Option[] {
  return [...new Map(options.map((option) => [option.name, option])).values()];
}

function wordsCase(option: Option): string {
  return `      ${longName(option)}) _tsbuse_words "$current" ${option.words.join(" ")} ;;`;
}

function positionCases(command: Command): string[] {
  return positionSources(command).flatMap((sources, position) => {
    const actions = sources.flatMap(sourceActions);
    return actions.length === 0 ? [] : [`      ${command.text.name}/${position}) ${actions.join("; ")} ;;`];
  });
}

function sourceActions({ files, nodes, words }: Source): string[] {
  return [
    ...(files ? [`_tsbuse_files "$current"`] : []),
    ...(nodes === undefined ? [] : [`_tsbuse_nodes "$current" ${nodes}`]),
    ...(words.length === 0 ? [] : [`_tsbuse_words "$current" ${words.join(" ")}`]),
  ];
}
