/**
 * What a command is: its documentation, its arguments and what it does, in one object. The help, the man page, the
 * shell completions and the parser are all made from it.
 */
import { type ArgsDef, type CommandDef, defineCommand, type ParsedArgs, runCommand } from "citty";
import { joinRepeated } from "./options/parser.ts";

/** An example is shown as it would be typed. */
export interface Example {
  readonly line: string;
  readonly does: string;
}

export interface CommandText {
  readonly name: string;
  /** `device`: puts a device on a target. `tool`: anything else. */
  readonly kind: "device" | "tool";
  /** One line, without a full stop. */
  readonly summary: string;
  /** Positional arguments as the synopsis shows them: `SIZE TARGET`. */
  readonly synopsis: string;
  /** What may follow after `--`, as many as one likes: `KEY=VALUE`. Absent: nothing. */
  readonly rest?: string;
  /** Paragraphs. */
  readonly details: readonly string[];
  readonly examples: readonly Example[];
}

export interface Command {
  readonly text: CommandText;
  readonly args: ArgsDef;
  /** Most of its words are another command's, and are checked as that one's. */
  readonly forwards?: true;
  /** Parses and runs. Returns the exit status. The arguments must have passed `checkArguments`. */
  readonly execute: (rawArgs: string[]) => Promise<number>;
}

/** Makes a command; `run` gets its arguments typed by their definition. */
export function command<const T extends ArgsDef>(
  text: CommandText,
  args: T,
  run: (args: ParsedArgs<T>, rawArgs: readonly string[]) => Promise<number> | number,
): Command {
  return {
    text,
    args,
    execute: async (rawArgs) => {
      const words = joinRepeated(args, rawArgs);
      const definition: CommandDef<T> = defineCommand({
        meta: { name: text.name, description: text.summary },
        args,
        run: (context) => run(context.args, words),
      });
      // What follows "--" would be taken for an argument that may be left out.
      const end = text.rest === undefined ? -1 : words.indexOf("--");
      const { result } = await runCommand(definition, { rawArgs: end < 0 ? words : words.slice(0, end) });
      return typeof result === "number" ? result : 0;
    },
  };
}
