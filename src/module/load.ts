/**
 * A device from a user's module: a .ts or .js file, loaded at run time by a program that may be a single compiled
 * binary. Whatever is wrong with it becomes a message of one line, with the place in the file if that is known.
 */
import { realpathSync, statSync } from "node:fs";
import { extname, resolve } from "node:path";
import type { BlockDevice } from "../device.ts";
import { messageOf, UserError } from "../errors.ts";
import { analyze } from "./analysis.ts";
import { provideApi } from "./api.ts";
import { type GivenOptions, parseOptions } from "../values/option-table.ts";
import type { FileStates } from "./file-state.ts";
import { displayPath, placeOf, placeOfDefaultExport } from "./place.ts";
import { assertDevice, describe } from "./shape.ts";
import { withinLimit } from "./time-limit.ts";

/** How long a module may take to load, and how long to make its device, in milliseconds each. */
const LIMIT_MS = 30_000;
const EXTENSIONS: ReadonlySet<string> = new Set([".ts", ".mts", ".tsx", ".js", ".mjs", ".jsx"]);

/**
 * The device that the module at `path` exports, or that its default export makes of the options.
 * @throws UserError whatever is wrong with the module.
 */
export async function loadDevice(path: string, options: GivenOptions = {}): Promise<BlockDevice> {
  return new UserModule(path).load(options);
}

/** A module that can be loaded again when it has changed. */
export class UserModule {
  /** Absolute, and the file itself where `path` is a link: the name by which the runtime knows it. */
  readonly file: string;
  readonly #limitMs: number;
  #files: FileStates = new Map();
  #generation = 0;
  /** The name by which the runtime keeps it, and with it all that it has made. */
  #imported = "";

  /** @throws UserError when there is no such file. */
  constructor(path: string, limitMs = LIMIT_MS) {
    this.file = findModule(path);
    this.#limitMs = limitMs;
  }

  /** The files that it was made of when it was last loaded, or was tried to, as they were then. */
  get files(): ReadonlyMap<string, string> {
    return this.#files;
  }

  /** Loads the module, again if necessary, and makes its device. @throws UserError */
  async load(options: GivenOptions): Promise<BlockDevice> {
    const known = this.#files;
    const files: FileStates = new Map();
    this.#files = files;
    await analyze(this.file, files);
    if (this.#generation > 0) forget([this.#imported, ...known.keys(), ...files.keys()]);
    const exports = await this.#import();
    return this.#makeDevice(exports, options);
  }

  async #import(): Promise<Record<string, unknown>> {
    provideApi();
    this.#generation += 1;
    // The query makes the runtime load the module itself again if it cannot forget it, see `forget`.
    this.#imported = this.#generation === 1 ? this.file : `${this.file}?generation=${this.#generation}`;
    try {
      const loading: Promise<Record<string, unknown>> = import(this.#imported);
      return await withinLimit(loading, this.#limitMs, "the module");
    } catch (error) {
      if (isLinkError(error)) forgetUnlinked(this.#files.keys());
      throw this.#failure(error, "the module");
    }
  }

  async #makeDevice(exports: Record<string, unknown>, given: GivenOptions): Promise<BlockDevice> {
    const place = placeOfDefaultExport(this.file);
    const exported = exports["default"];
    if (exported === undefined) {
      const named = displayPath(this.file);
      throw new UserError(`${named}: there is no default export: add "export default" before the device`);
    }
    const table = exports["options"];
    const options =
      table === undefined ? Object.freeze({ ...given }) : parseOptions(table, given, displayPath(this.file));
    if (typeof exported !== "function" && Object.keys(given).length > 0) {
      throw new UserError(
        `${place}: the default export is no function, so it takes no options: leave them out`,
      );
    }
    const made = await this.#make(exported, options);
    if (made === undefined) throw new UserError(`${place}: the function returned nothing: return the device`);
    assertDevice(made, place);
    return made;
  }

  /** The device itself, or what the function or class makes; a promise of it is waited for. */
  async #make(exported: unknown, options: Record<string, unknown>): Promise<unknown> {
    try {
      const made = typeof exported === "function" ? callOrConstruct(exported, options) : exported;
      return await withinLimit(made, this.#limitMs, "the function that makes the device");
    } catch (error) {
      throw this.#failure(error, "the function that makes the device");
    }
  }

  /** One line for what was thrown while `what` was running. */
  #failure(thrown: unknown, what: string): UserError {
    const place = placeOf(thrown, this.#files) ?? displayPath(this.file);
    return new UserError(`${place}: ${failureText(thrown, what)}`.replaceAll(/\s*\n\s*/g, " "), {
      cause: thrown,
    });
  }
}

function failureText(thrown: unknown, what: string): string {
  // A message that is meant for the user says it all, and the runtime's own about a module as well.
  if (thrown instanceof UserError || isLinkError(thrown) || thrown instanceof ResolveMessage)
    return thrown.message;
  if (!(thrown instanceof Error)) return `${what} threw ${describe(thrown)}: throw an Error, which says why`;
  return `${what} threw ${thrown.name}: ${messageOf(thrown) || "no message"}`;
}

/** @throws UserError */
function findModule(path: string): string {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats === undefined) throw new UserError(`${path} does not exist: check the name of the module`);
  if (!stats.isFile() || !EXTENSIONS.has(extname(path))) {
    throw new UserError(`${path} is not a module: give a file that ends in .ts or .js`);
  }
  return realpathSync(resolve(path));
}

/** Makes the runtime read files again at the next import, except installed packages. */
function forget(files: Iterable<string>): void {
  for (const file of files) {
    if (!file.includes("/node_modules/")) delete require.cache[file];
  }
}

/**
 * If modules do not fit together, the runtime keeps what it has read, even when told to forget it, until `require` has
 * failed on each. None of them has run, and none runs now.
 */
function forgetUnlinked(files: Iterable<string>): void {
  for (const file of [...files].toReversed()) {
    try {
      require(file);
    } catch {
      // As expected.
    }
  }
}

/** The import of a name that another module does not export, where the bundler could not tell. */
function isLinkError(thrown: unknown): thrown is SyntaxError {
  return thrown instanceof SyntaxError && thrown.stack === undefined;
}

/** A class cannot be called, a function can. They differ in that a class's prototype is not writable. */
function callOrConstruct(factory: Function, options: Record<string, unknown>): unknown {
  const isClass = Object.getOwnPropertyDescriptor(factory, "prototype")?.writable === false;
  const made: unknown = isClass
    ? Reflect.construct(factory, [options])
    : Reflect.apply(factory, undefined, [options]);
  return made;
}
