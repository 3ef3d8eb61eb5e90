/** `--layer NAME[:KEY=VALUE,…]`: parsed and documented from the tables of the layers. */
import { LAYERS } from "../../layers/index.ts";
import type { Layer } from "../../layers/layer.ts";
import type { MemoryFiles } from "../../layers/memory-files.ts";
import type { LayerContext, LayerOption, NamedLayer } from "../../layers/options.ts";
import { report } from "../log.ts";
import { didYouMean, UsageError } from "../usage-error.ts";
import { repeatable } from "./argument.ts";

/** For all commands that make a device. */
export const LAYER = repeatable({
  name: "layer",
  valueHint: "LAYER",
  words: LAYERS.map(({ name }) => name),
  description: "Put a layer before the device; data passes the first one first",
  parse: (texts) => parseLayers(texts),
});

/** The layers before a device. */
export interface LayerStack {
  /** The first is nearest the transport. */
  readonly layers: readonly Layer[];
  readonly names: readonly string[];
  /** Whether one of them keeps changes from the device, which can then be opened read-only. */
  readonly sparesDevice: boolean;
  /** Whether one of them keeps changes in a file, which only one process can have open. */
  readonly hasFile: boolean;
  /**
   * Prepares them for a device that is handed over. Their data in memory goes to `files`.
   * @param isLate another process has the device: files that it alone may open are opened when the device is prepared.
   */
  handOver(files: MemoryFiles, isLate: boolean): void;
}

/** A layer's documentation: `cow[:file=FILE]`, what it does, and its options. */
export interface LayerText {
  readonly usage: string;
  readonly summary: string;
  /** `file=FILE` and what it means. */
  readonly options: readonly (readonly [term: string, meaning: string])[];
}

export const LAYER_TEXTS: readonly LayerText[] = LAYERS.map(({ name, summary, options }) => {
  const entries = Object.entries(options);
  const [needed, others] = [true, false].map((isNeeded) =>
    entries
      .filter(([, { required = false }]) => required === isNeeded)
      .map(([key, { value }]) => `${key}=${value}`)
      .join(","),
  );
  return {
    usage: usageOf(name, needed ?? "", others ?? ""),
    summary,
    options: entries.map(([key, { value, description }]) => [`${key}=${value}`, description]),
  };
});

/** `cow[:file=FILE]`, `record:file=FILE[,size=SIZE]`. */
function usageOf(name: string, needed: string, others: string): string {
  if (needed === "") return others === "" ? name : `${name}[:${others}]`;
  return others === "" ? `${name}:${needed}` : `${name}:${needed}[,${others}]`;
}

/**
 * Parses the requested layers. Opens nothing yet.
 * @param context receives the layers' messages.
 * @throws UsageError
 */
export function parseLayers(texts: readonly string[], context: LayerContext = { report }): LayerStack {
  let isLate = false;
  let files: MemoryFiles | undefined;
  const inContext = { ...context, takesOver: () => isLate, files: () => files };
  const parsed = texts.map((text) => parseLayer(text, inContext));
  return {
    handOver: (given, late) => {
      files = given;
      isLate = late;
    },
    hasFile: parsed.some(({ hasFile }) => hasFile),
    layers: parsed.map(({ layer }) => layer),
    names: parsed.map(({ named }) => named.name),
    sparesDevice: parsed.some(({ named }) => named.sparesDevice),
  };
}

interface ParsedLayer {
  readonly named: NamedLayer;
  readonly layer: Layer;
  readonly hasFile: boolean;
}

function parseLayer(text: string, context: LayerContext): ParsedLayer {
  const colon = text.indexOf(":");
  const name = colon < 0 ? text : text.slice(0, colon);
  const named = LAYERS.find((each) => each.name === name);
  if (named === undefined) throw new UsageError(unknownLayer(name));
  const values = colon < 0 ? new Map<string, string>() : parseValues(named, text.slice(colon + 1));
  const missing = Object.entries(named.options).find(([key, { required }]) => required && !values.has(key));
  if (missing !== undefined) {
    const [key, { value }] = missing;
    throw new UsageError(`layer ${name} needs a ${key}: give ${name}:${key}=${value}`);
  }
  const given = <Value>(option: LayerOption<Value>): Value | undefined => valueOf(named, values, option);
  return { named, layer: named.make(given, context), hasFile: named.hasFile?.(given) ?? false };
}

function unknownLayer(name: string): string {
  const names = LAYERS.map((each) => each.name);
  return `unknown layer "${name}": ${didYouMean(name, names, `give ${list(names, "or")}`)}`;
}

/** The texts for the keys of a layer. A comma separates only if a key follows: file names contain commas too. */
function parseValues(named: NamedLayer, text: string): Map<string, string> {
  const values = new Map<string, string>();
  for (const pair of text.split(/,(?=[a-z]+=)/)) {
    const equals = pair.indexOf("=");
    const key = equals < 0 ? pair : pair.slice(0, equals);
    const option = Object.hasOwn(named.options, key) ? named.options[key] : undefined;
    if (option === undefined) throw new UsageError(unknownKey(named, key));
    if (equals < 0 || equals === pair.length - 1) {
      throw new UsageError(`layer ${named.name}: ${key} needs a value: give ${key}=${option.value}`);
    }
    if (values.has(key)) throw new UsageError(`layer ${named.name}: ${key} is given twice: give it once`);
    values.set(key, pair.slice(equals + 1));
  }
  return values;
}

function unknownKey({ name, options }: NamedLayer, key: string): string {
  const keys = Object.keys(options);
  if (keys.length === 0) return `layer ${name} has no options: leave out ":" and all after it`;
  if (key === "") return `layer ${name}: an option is missing after ":" or ",": it has ${list(keys)}`;
  return `layer ${name} has no option "${key}": ${didYouMean(key, keys, `it has ${list(keys)}`)}`;
}

function valueOf<Value>(
  { name, options }: NamedLayer,
  values: ReadonlyMap<string, string>,
  option: LayerOption<Value>,
): Value | undefined {
  const key = Object.keys(options).find((each) => options[each] === option);
  const text = key === undefined ? undefined : values.get(key);
  if (text === undefined) return undefined;
  const value = option.parse(text);
  if (value !== undefined) return value;
  const remedy = didYouMean(text, option.words ?? [], `give ${option.expects}`);
  throw new UsageError(`layer ${name}: ${key}=${text} is invalid: ${remedy}`);
}

/** `a, b and c`. */
function list(words: readonly string[], conjunction = "and"): string {
  const last = words.at(-1) ?? "";
  return words.length < 2 ? last : `${words.slice(0, -1).join(", ")} ${conjunction} ${last}`;
}
