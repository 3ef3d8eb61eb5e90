/**
 * The options of a module, `key=value` after `--` on the command line. If a module exports a table of them as
 * `options`, it gets them checked and typed; otherwise it gets the strings as they are.
 */
import { UserError } from "../errors.ts";
import { bytesOf } from "./sizes.ts";

/** What the module gets for each type of option. */
interface OptionTypes {
  readonly string: string;
  readonly number: number;
  /** Bytes: `64M` on the command line. */
  readonly size: number;
  /** `yes`, `true`, `on`, `1`, or their opposites. */
  readonly boolean: boolean;
}

type OptionType = keyof OptionTypes;

/** An option of a module. */
export interface OptionDefinition {
  readonly type: OptionType;
  /** The default, as it would be typed. Absent: the option must be given. */
  readonly default?: string;
}

/**
 * The options of a module, by name: what it exports as `options`.
 *
 * @example
 *     export const options = {
 *       size: { type: "size", default: "64M" },
 *       url: { type: "string" },
 *     } as const satisfies OptionTable;
 *
 *     export default ({ size, url }: OptionValues<typeof options>) => new MyDevice(size, url);
 */
export type OptionTable = Readonly<Record<string, OptionDefinition>>;

/** The argument of a module's function, from its table of options. */
export type OptionValues<Table extends OptionTable> = {
  readonly [Name in keyof Table]: OptionTypes[Table[Name]["type"]];
};

/** Options as they were typed. */
export type GivenOptions = Readonly<Record<string, string>>;

const PARSERS: { readonly [Type in OptionType]: (text: string) => OptionTypes[Type] | undefined } = {
  string: (text) => text,
  number: (text) => (text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : undefined),
  size: (text) => (Number.isSafeInteger(bytesOf(text)) && bytesOf(text) > 0 ? bytesOf(text) : undefined),
  boolean: (text) => {
    if (/^(?:yes|true|on|1)$/i.test(text)) return true;
    return /^(?:no|false|off|0)$/i.test(text) ? false : undefined;
  },
};

const EXPECTATIONS: { readonly [Type in OptionType]: string } = {
  string: "any text",
  number: "a number",
  size: "bytes, or a number with K, M, G or T, such as 512M",
  boolean: "yes or no",
};

/** @param place precedes the message: the module. @throws UserError naming the invalid option. */
export function parseOptions(table: unknown, given: GivenOptions, place: string): Record<string, unknown> {
  const definitions = checkTable(table, place);
  const unknown = Object.keys(given).find((name) => !definitions.has(name));
  if (unknown !== undefined) {
    const known = [...definitions.keys()].join(", ");
    throw new UserError(`${place}: there is no option "${unknown}": give ${known === "" ? "none" : known}`);
  }
  const values = [...definitions].map(([name, definition]) => {
    const text = Object.hasOwn(given, name) ? given[name] : definition.default;
    if (text === undefined) {
      throw new UserError(`${place}: the option "${name}" is missing: add -- ${name}=VALUE`);
    }
    const value = PARSERS[definition.type](text);
    if (value === undefined) {
      const expected = EXPECTATIONS[definition.type];
      throw new UserError(`${place}: ${name}=${text} is invalid: give ${expected}`);
    }
    return [name, value] as const;
  });
  return Object.fromEntries(values);
}

/** The table comes from a module whose types were never checked. */
function checkTable(table: unknown, place: string): Map<string, OptionDefinition> {
  if (typeof table !== "object" || table === null) {
    throw new UserError(
      `${place}: the export "options" is not a table: make it { name: { type: "string" } }`,
    );
  }
  const entries = Object.entries(table).map(([name, definition]: [string, unknown]) => {
    if (isDefinition(definition)) return [name, definition] as const;
    const types = Object.keys(PARSERS).join(", ");
    throw new UserError(
      `${place}: the option "${name}" has no type: make it { type } of ${types}, default a string`,
    );
  });
  return new Map(entries);
}

function isDefinition(value: unknown): value is OptionDefinition {
  if (typeof value !== "object" || value === null || !("type" in value)) return false;
  const isDefaultText =
    !("default" in value) || value.default === undefined || typeof value.default === "string";
  return typeof value.type === "string" && Object.hasOwn(PARSERS, value.type) && isDefaultText;
}
