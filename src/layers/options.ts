/**
 * The options of a layer: one table, from which the command line is parsed and the help and the documentation are
 * made.
 */
import type { Layer } from "./layer.ts";
import type { MemoryFiles } from "./memory-files.ts";

/** An option of a layer, `key=value` on the command line. */
export interface LayerOption<Value> {
  /** What stands for the value in the help: `FILE`. */
  readonly value: string;
  /** One line, without a full stop. */
  readonly description: string;
  /** What a value must be, as the end of "give …". */
  readonly expects: string;
  /** The valid words, if they are few: for a mistyped one, the message suggests the nearest. */
  readonly words?: readonly string[];
  /** The option must be given. */
  readonly required?: true;
  /** Undefined if the text is invalid. */
  readonly parse: (text: string) => Value | undefined;
}

export type LayerOptionTable = Readonly<Record<string, LayerOption<unknown>>>;

/** Returns the value given for an option of the table; undefined if it was not given. */
export type Given = <Value>(option: LayerOption<Value>) => Value | undefined;

/** The surroundings of a layer. */
export interface LayerContext {
  /** Takes the lines that a layer reports while it works and when it ends. */
  readonly report: (line: string) => void;
  /** Whether the device is taken over from another process, which still has a layer's file open and locked. */
  readonly takesOver?: () => boolean;
  /** Where a layer keeps what it has in memory, if another process is to get it. Undefined: memory of its own. */
  readonly files?: () => MemoryFiles | undefined;
}

/** A layer with a name on the command line. */
export interface NamedLayer {
  readonly name: string;
  /** One line, without a full stop. */
  readonly summary: string;
  readonly options: LayerOptionTable;
  /** It passes no change on: it is enough to open the device below read-only. */
  readonly sparesDevice: boolean;
  /** Whether it keeps changes in a file, which one process alone has open. Absent: it does not. */
  readonly hasFile?: (given: Given) => boolean;
  /** Nothing is opened or made before the layer is put on a device. */
  readonly make: (given: Given, context: LayerContext) => Layer;
}

/** An option, its type inferred from its parser. */
export function option<Value>(definition: LayerOption<Value>): LayerOption<Value> {
  return definition;
}

/** A whole number within limits. */
export function wholeNumber(least: number, most: number): Pick<LayerOption<number>, "expects" | "parse"> {
  return {
    expects: `a whole number from ${least} to ${most}`,
    parse: (text) => {
      const number = /^\d+$/.test(text) ? Number(text) : Number.NaN;
      return number >= least && number <= most ? number : undefined;
    },
  };
}

/** One of a few words. */
export function oneOf<const Word extends string>(
  words: readonly Word[],
): Pick<LayerOption<Word>, "expects" | "words" | "parse"> {
  return {
    words,
    expects: words.length === 1 ? `${words[0]}` : `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`,
    parse: (text) => words.find((word) => word === text),
  };
}
