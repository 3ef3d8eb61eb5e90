/** The modules of one kernel, /lib/modules/RELEASE: where each lies, and what must be loaded before it. */
import { existsSync, readdirSync } from "node:fs";
import { join, relative } from "node:path";
import { readAttribute } from "../libc/sysfs.ts";
import { moduleInfo, moduleName, readImage } from "./image.ts";

export class ModuleTree {
  constructor(readonly directory: string) {}

  /** The tree of a kernel in the first of `roots` that has one. */
  static find(release: string, roots: readonly string[]): ModuleTree | undefined {
    const directory = roots.map((root) => join(root, release)).find((path) => existsSync(path));
    return directory === undefined ? undefined : new ModuleTree(directory);
  }

  /** Whether the module is part of the kernel itself. */
  isBuiltIn(name: string): boolean {
    const lines = readAttribute(join(this.directory, "modules.builtin"))?.split("\n") ?? [];
    return lines.some((line) => moduleName(line) === name);
  }

  /**
   * The files to load, in order: the module is the last. Undefined where it is not to be found.
   * @param name with underscores.
   * @throws Error if a file must be read to find its dependencies, and that fails.
   */
  async chain(name: string): Promise<string[] | undefined> {
    const indexed = this.#indexed(name);
    if (indexed?.every((path) => existsSync(path)) === true) return indexed;
    const files = this.#files();
    if (!files.has(name)) return undefined;
    const chain: string[] = [];
    await addWithDependencies(name, files, chain);
    return chain;
  }

  /** As modules.dep has it, the file that depmod(8) makes: `MODULE: NEEDS …`, what is needed first comes last. */
  #indexed(name: string): string[] | undefined {
    for (const line of readAttribute(join(this.directory, "modules.dep"))?.split("\n") ?? []) {
      const [file = "", needs = ""] = line.split(":");
      if (moduleName(file) !== name) continue;
      const paths = [file, ...needs.split(" ").filter((path) => path !== "")];
      // An absolute path is one already.
      return paths.map((path) => (path.startsWith("/") ? path : join(this.directory, path))).toReversed();
    }
    return undefined;
  }

  /** Every module file by its name. Of two of one name the one in updates/ counts, as it does for depmod(8). */
  #files(): Map<string, string> {
    const entries = readdirSync(this.directory, { recursive: true, withFileTypes: true });
    const files = entries
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name));
    const isUpdate = (path: string): number =>
      relative(this.directory, path).startsWith("updates/") ? 1 : 0;
    const found = new Map<string, string>();
    for (const path of files.toSorted((a, b) => isUpdate(a) - isUpdate(b))) {
      const name = moduleName(path);
      if (name !== undefined) found.set(name, path);
    }
    return found;
  }
}

/** Without an index each module says itself what it needs. One that is not there may be part of the kernel. */
async function addWithDependencies(
  name: string,
  files: ReadonlyMap<string, string>,
  chain: string[],
): Promise<void> {
  const path = files.get(name.replaceAll("-", "_"));
  if (path === undefined || chain.includes(path)) return;
  for (const need of moduleInfo(await readImage(path)).dependencies) {
    await addWithDependencies(need, files, chain);
  }
  chain.push(path);
}
