/**
 * What a command is: its documentation, its arguments and what it does, in one object. The help, the man page, the
 * shell completions and the parser are all made from it.
 */
import { type ArgsDef, type CommandDef, defineCommand, type ParsedArgs, runCommand } from "citty";

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
  /** Paragraphs. */
  readonly details: readonly string[];
  readonly examples: readonly Example[];
}

export interface Command {
  readonly text: CommandText;
  readonly args: ArgsDef;
  /** Parses and runs. Returns the exit status. The arguments must have passed `checkArguments`. */
  readonly execute: (rawArgs: string[]) => Promise<number>;
}

/** Makes a command; `run` gets its arguments typed by their definition. */
export function command<const T extends ArgsDef>(
  text: CommandText,
  args: T,
  run: (args: ParsedArgs<T>, rawArgs: readonly string[]) => Promise<number> | number,
): Command {
  const definition: CommandDef<T> = defineCommand({
    meta: { name: text.name, description: text.summary },
    args,
    run: (context) => run(context.args, context.rawArgs),
  });
  return {
    text,
    args,
    execute: async (rawArgs) => {
      const { result } = await runCommand(definition, { rawArgs });
      return typeof result === "number" ? result : 0;
    },
  };
}
