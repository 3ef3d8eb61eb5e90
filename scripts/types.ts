/**
 * Writes the declarations of the public API as one self-contained file, which "tsbuse new" puts beside a module: an
 * editor then knows the types with nothing installed. Run `bun run types` after a change of the API; a test compares.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";

const ROOT = join(import.meta.dir, "..");
const OUTPUT = join(ROOT, "src/module/starter/tsbuse.d.txt");
const HEADER =
  '// The declarations of tsbuse\'s API, written by "tsbuse new". Do not edit: new versions replace it.\n';

/** The specifier of an import or an export, but not those in the examples of comments. */
const SPECIFIER = /^(?![ ]*\*)(.*?(?:\bfrom |\bimport\())"([^"]+)"/gm;

/** The text of the file. @throws Error when the compiler fails, or the API needs types of other packages. */
export async function apiDeclarations(): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), "tsbuse-types-"));
  try {
    await emitDeclarations(directory);
    const files = reachable(directory, join(directory, "index.d.ts"));
    const modules = files.toSorted().map((file) => ambientModule(directory, file));
    return [HEADER, ...modules].join("\n");
  } finally {
    rmSync(directory, { recursive: true });
  }
}

async function emitDeclarations(directory: string): Promise<void> {
  const tsc = Bun.spawn(
    [
      process.execPath,
      join(ROOT, "node_modules/.bin/tsc"),
      "-p",
      "scripts/tsconfig.types.json",
      "--outDir",
      directory,
    ],
    { cwd: ROOT, stdout: "pipe", stderr: "inherit" },
  );
  const [status, text] = await Promise.all([tsc.exited, tsc.stdout.text()]);
  if (status !== 0) throw new Error(`making the declarations failed:\n${text}`);
}

/** The file and all files that it imports types from, directly or not. */
function reachable(directory: string, file: string, found = new Set<string>()): string[] {
  if (!found.has(file)) {
    found.add(file);
    for (const [, , specifier = ""] of readFileSync(file, "utf8").matchAll(SPECIFIER)) {
      if (!specifier.startsWith(".")) {
        throw new Error(
          `${relative(directory, file)} imports types from ${specifier}: an editor may not have them`,
        );
      }
      reachable(directory, declarationOf(file, specifier), found);
    }
  }
  return [...found];
}

function declarationOf(file: string, specifier: string): string {
  return join(dirname(file), specifier.replace(/\.ts$/, ".d.ts"));
}

/** `declare module "tsbuse/device" { … }`; it allows neither a second `declare` inside nor relative paths. */
function ambientModule(directory: string, file: string): string {
  const nameOf = (path: string): string => {
    const name = relative(directory, path).replace(/\.d\.ts$/, "");
    return name === "index" ? "tsbuse" : `tsbuse/${name}`;
  };
  const text = readFileSync(file, "utf8")
    .replaceAll(
      SPECIFIER,
      (_, keyword: string, specifier: string) => `${keyword}"${nameOf(declarationOf(file, specifier))}"`,
    )
    .replaceAll(/^(export )?declare /gm, "$1")
    .trimEnd()
    .replaceAll(/^(?=.)/gm, "  ");
  return `declare module "${nameOf(file)}" {\n${text}\n}\n`;
}

if (import.meta.main) await Bun.write(OUTPUT, await apiDeclarations());
