/** Which tsbuse this is: for bug reports, and for people who rebuild it. */
import { VERSION } from "./documentation.ts";

/** Set by scripts/build.ts. Absent when the program runs from its sources. */
declare const TSBUSE_BUILD: BuildFacts | undefined;

interface BuildFacts {
  /** The commit it was built from, followed by "-modified" if files had been changed; "unknown" without git. */
  readonly commit: string;
  /** The end of the binary's name in a release: `linux-x64`. */
  readonly target: string;
}

/** The words that ask for the version, alone or together with one that asks for details. */
const VERSION_WORDS: ReadonlySet<string> = new Set(["--version", "-V"]);
const DETAIL_WORDS: ReadonlySet<string> = new Set(["--verbose", "-v"]);

/** The answer to a command line that asks for the version; undefined for any other. */
export function versionAnswer(words: readonly string[]): string | undefined {
  if (words.length > 2 || !words.some((word) => VERSION_WORDS.has(word))) return undefined;
  const other = words.find((word) => !VERSION_WORDS.has(word));
  if (words.length === 1) return `tsbuse ${VERSION}`;
  return other !== undefined && DETAIL_WORDS.has(other) ? details() : undefined;
}

function build(): BuildFacts | undefined {
  return typeof TSBUSE_BUILD === "undefined" ? undefined : TSBUSE_BUILD;
}

/** The system that it was built for. */
export function buildTarget(): string {
  return build()?.target ?? `${process.platform}-${process.arch}`;
}

function details(): string {
  return [
    `tsbuse ${VERSION}`,
    `commit ${build()?.commit ?? "unknown, run from its sources"}`,
    `runtime bun ${Bun.version}`,
    `target ${buildTarget()}`,
  ].join("\n");
}
