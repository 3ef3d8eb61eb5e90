/**
 * A command in one object: its documentation, its arguments and what it does. The help, the man page, the shell
 * completions and the parser all use it.
 */
import { defineCommand, runCommand } from "citty";
import { type ArgumentTable, byName, type Given, reader, type Values, valuesOf } from "./options/argument.ts";
import { SERVING, type ServingOptions, servingOptions } from "./options/serving.ts";
import { isServerTarget } from "../nbd/server/target.ts";
import { becomeIoFlusher } from "./serving/io-flusher.ts";
import { joinRepeated, splitAtRest } from "./options/words.ts";

/** An example as it would be typed. */
export interface Example {
  readonly line: string;
  readonly does: string;
}

export interface CommandText {
  readonly name: string;
  /** `device`: puts a device on a target. `tool`: all others. */
  readonly kind: "device" | "tool";
  /** One line, without a full stop. */
  readonly summary: string;
  /** Positional arguments as the synopsis shows them: `SIZE TARGET`. */
  readonly synopsis: string;
  /** What may follow `--`, any number of times: `KEY=VALUE`. Absent: nothing. */
  readonly rest?: string;
  /** Paragraphs. */
  readonly details: readonly string[];
  readonly examples: readonly Example[];
}

export interface Command {
  readonly text: CommandText;
  /** By the names that users type. */
  readonly args: ArgumentTable;
  /** Most of its words belong to another command, and are checked by that command's rules. */
  readonly forwards?: true;
  /** Parses and runs. Returns the exit status. The arguments must have passed `checkArguments`. */
  readonly execute: (words: readonly string[]) => Promise<number>;
}

type Text = Omit<CommandText, "kind">;
type Status = Promise<number> | number;

/** Makes a command. `run` receives the values of its arguments, and the words that they came from. */
export function command<Table extends ArgumentTable>(
  text: Text,
  table: Table,
  run: (args: Values<Table>, words: readonly string[]) => Status,
): Command {
  return makeCommand({ ...text, kind: "tool" }, byName(table), (given, words) =>
    run(valuesOf(table, given), words),
  );
}

/** Makes a command that puts a device on a target. It adds the arguments that every such command has. */
export function deviceCommand<Table extends ArgumentTable>(
  text: Text,
  table: Table,
  run: (args: Values<Table>, options: ServingOptions, words: readonly string[]) => Status,
): Command {
  return makeCommand({ ...text, kind: "device" }, byName({ ...table, ...SERVING }), (given, words) => {
    const [args, options] = [valuesOf(table, given), servingOptions(given)];
    // Clients of a socket write back from their own memory.
    if (!words.some(isServerTarget)) becomeIoFlusher(options.daemon);
    return run(args, options, words);
  });
}

function makeCommand(
  text: CommandText,
  args: ArgumentTable,
  run: (given: Given, words: readonly string[]) => Status,
): Command {
  return {
    text,
    args,
    execute: async (words) => {
      const definition = defineCommand({
        meta: { name: text.name, description: text.summary },
        args,
        run: (context) => run(reader(args, context.args), words),
      });
      // citty would take what follows "--" for an optional argument.
      const own = text.rest === undefined ? words : splitAtRest(words).own;
      const { result } = await runCommand(definition, { rawArgs: joinRepeated(args, own) });
      return typeof result === "number" ? result : 0;
    },
  };
}
