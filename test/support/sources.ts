/** The project's own source files, as text. */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";

/** The checkout. */
const ROOT = join(import.meta.dir, "../..");

export interface Source {
  /** Relative to the checkout: `src/nbd/protocol.ts`. */
  readonly path: string;
  readonly lines: readonly string[];
  /** Without comments and the contents of strings; templates are kept. */
  readonly code: string;
  /** Its imports: paths relative to the checkout, and names of packages. */
  readonly imports: readonly string[];
}

/** Every TypeScript file below the folders. */
export function sourcesIn(...folders: readonly string[]): Source[] {
  const names = folders.flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" }).map((name) => join(folder, name)),
  );
  return names.filter((name) => name.endsWith(".ts")).map(readSource);
}

function readSource(path: string): Source {
  const text = readFileSync(join(ROOT, path), "utf8");
  return { path, lines: text.split("\n"), code: codeOf(text), imports: importsOf(path, text) };
}

const COMMENT_OR_STRING = /\/\*[\s\S]*?\*\/|\/\/.*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'/g;

export function codeOf(text: string): string {
  return text.replaceAll(COMMENT_OR_STRING, (found) => (found.startsWith("/") ? "" : '""'));
}

const IMPORT = /(?:\bfrom|\bimport|\bimport\()\s*"([^"]+)"/g;

export function importsOf(path: string, text: string): string[] {
  const specifiers = [...text.matchAll(IMPORT)].map((match) => match[1] ?? "");
  return specifiers.map((name) => (name.startsWith(".") ? normalize(join(dirname(path), name)) : name));
}
