/** Where in a module a fault is, in the form that people and editors read: `disk.ts:3:18`. */
import { readFileSync } from "node:fs";
import { relative } from "node:path";

/** The path as it would be typed here: relative below the working directory, else absolute. */
export function displayPath(file: string): string {
  const here = relative(process.cwd(), file);
  return here === "" || here.startsWith("..") ? file : here;
}

/** The innermost place in an error's stack that lies in one of `files`; undefined if there is none. */
export function placeOf(thrown: unknown, files: ReadonlyMap<string, unknown>): string | undefined {
  if (!(thrown instanceof Error) || thrown.stack === undefined) return undefined;
  // `at name (/path/file.ts:3:18)`, or without the name; a module that was loaded anew has a query.
  const frame = /(?:\(|at (?:async )?)(\/[^()\n]*?)(?:\?[^():\n]*)?:(\d+):(\d+)\)?$/gm;
  for (const [, file = "", line, column] of thrown.stack.matchAll(frame)) {
    if (files.has(file)) return `${displayPath(file)}:${line}:${column}`;
  }
  return undefined;
}

/** The place of the module's default export; without a line if that is unknown. */
export function placeOfDefaultExport(file: string): string {
  const lines = readFileSync(file, "utf8").split("\n");
  const index = lines.findIndex((line) => /^\s*export\s+default\b|^\s*export\b.*\bas\s+default\b/.test(line));
  return index < 0 ? displayPath(file) : `${displayPath(file)}:${index + 1}`;
}
