/**
 * The positional arguments and options of a command: one definition of each provides its type, its parser, the help,
 * the man page and the completions.
 */
import { splitRepeated } from "./words.ts";

/** A definition in citty's form, and what citty lacks: how to parse its value, and its possible words. */
export interface Argument<Value> {
  readonly type: "positional" | "boolean" | "string";
  /** As users type it. Absent: its key in the table, `read-only` for `readOnly`. */
  readonly name?: string;
  /** One letter. */
  readonly alias?: string;
  readonly required?: boolean;
  /** The placeholder for its value: `BYTES`. */
  readonly valueHint?: string;
  /** One line, without a full stop. */
  readonly description: string;
  /** The words that its value can be, or begin with, if there are only a few. */
  readonly words?: readonly string[];
  readonly repeatable?: boolean;
  /** Converts what citty found, a text or true; undefined: nothing. */
  readonly read: (found: unknown, what: string, given: Given) => Value;
}

/** Gives the value of another argument of the same command. */
export type Given = <Value>(argument: Argument<Value>) => Value;

/**
 * Converts a text to a value.
 * @param what its name in messages: `--offset`.
 * @throws UserError
 */
export type Parse<Value> = (text: string, what: string, given: Given) => Value;

/** The arguments of a command, by the names of their values. */
export type ArgumentTable = Readonly<Record<string, Argument<unknown>>>;

/** The values of a table's arguments. */
export type Values<Table extends ArgumentTable> = {
  readonly [Key in keyof Table]: ReturnType<Table[Key]["read"]>;
};

/** A table whose values are passed unchanged as properties of `Target`. */
export type ArgumentsOf<Target> = { readonly [Key in keyof Target]?: Argument<Target[Key]> };

type Some<Names extends keyof Argument<unknown>> = Pick<Argument<unknown>, Names>;

/** An option without a value. */
export function flag(description: string, more: Some<"alias"> = {}): Argument<boolean> {
  return { type: "boolean", description, ...more, read: (found) => found === true };
}

/** The parts of an option with a value. */
interface OptionText<Parser> extends Some<"name" | "description" | "words"> {
  readonly valueHint: string;
  readonly parse: Parser;
}

/** An option with a value; undefined when it is not given. */
export function option<Value>({ parse, ...text }: OptionText<Parse<Value>>): Argument<Value | undefined> {
  return {
    type: "string",
    ...text,
    read: (found, what, given) => (typeof found === "string" ? parse(found, what, given) : undefined),
  };
}

/** An option that may be given several times. */
export function repeatable<Value>({
  parse,
  ...text
}: OptionText<(texts: readonly string[]) => Value>): Argument<Value> {
  return {
    type: "string",
    ...text,
    repeatable: true,
    read: (found) => parse(typeof found === "string" ? splitRepeated(found) : []),
  };
}

/** A required argument: checkArguments has checked that it is there. */
export function positional(description: string, more: Some<"words"> = {}): Argument<string> {
  return { type: "positional", required: true, description, ...more, read: String };
}

/** An optional positional argument. */
export function optional(description: string): Argument<string | undefined> {
  return {
    type: "positional",
    required: false,
    description,
    read: (found) => (typeof found === "string" ? found : undefined),
  };
}

/** The parser of an option with any text. */
export function anyText(text: string): string {
  return text;
}

/** The arguments of a table by the names that users type. */
export function byName(table: ArgumentTable): ArgumentTable {
  return Object.fromEntries(
    Object.entries(table).map(([key, argument]) => [argument.name ?? hyphenated(key), argument]),
  );
}

/**
 * Reads the values of a command's arguments.
 * @param args by their names.
 * @param found citty's result for the command line.
 */
export function reader(args: ArgumentTable, found: Readonly<Record<string, unknown>>): Given {
  const names = new Map(Object.entries(args).map(([name, argument]) => [argument, name]));
  const given = <Value>(argument: Argument<Value>): Value => {
    const name = names.get(argument) ?? "";
    // citty turns "--no-x" into x: false.
    const isNegated = name.startsWith("no-") && found[name.slice(3)] === false;
    return argument.read(isNegated ? true : found[name], `--${name}`, given);
  };
  return given;
}

/** All values of a table. @throws UserError if one is invalid. */
export function valuesOf<Table extends ArgumentTable>(table: Table, given: Given): Values<Table> {
  const entries = Object.entries(table).map(([key, argument]) => [key, given(argument)] as const);
  // The compiler cannot follow a table through its entries.
  return Object.fromEntries(entries) as Values<Table>;
}

/** `read-only` for `readOnly`. */
function hyphenated(key: string): string {
  return key.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
