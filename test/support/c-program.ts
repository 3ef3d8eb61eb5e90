/** Queries the system's own headers with a small C program. */
import { TemporaryDirectory } from "./temporary.ts";

export const HAS_COMPILER = Bun.which("cc") !== null;

/** Values of C expressions of integer type, in order. @throws Error with the compiler's message. */
export function evaluate(headers: readonly string[], expressions: readonly string[]): number[] {
  using directory = new TemporaryDirectory();
  const binary = directory.join("program");
  const statements = expressions.map((expression) => `printf("%lld\\n", (long long)(${expression}));`);
  compile(headers, statements, ["-o", binary]);
  const run = Bun.spawnSync([binary]);
  return run.stdout.toString().trim().split("\n").map(Number);
}

/** The bytes of a structure as the compiler lays it out; unnamed fields are 0. @throws Error as above. */
export function bytesOf(headers: readonly string[], type: string, initializer: string): Uint8Array {
  using directory = new TemporaryDirectory();
  const binary = directory.join("program");
  const statements = [
    `static const ${type} value = ${initializer};`,
    "fwrite(&value, sizeof value, 1, stdout);",
  ];
  compile(headers, statements, ["-o", binary]);
  return new Uint8Array(Bun.spawnSync([binary]).stdout);
}

/** Whether the headers declare everything in the expression. */
export function compiles(headers: readonly string[], expression: string): boolean {
  try {
    compile(headers, [`(void)(${expression});`], ["-fsyntax-only"]);
    return true;
  } catch {
    return false;
  }
}

function compile(
  headers: readonly string[],
  statements: readonly string[],
  options: readonly string[],
): void {
  const source = [
    "#define _GNU_SOURCE",
    ...[...headers, "<stddef.h>", "<stdio.h>"].map((header) => `#include ${header}`),
    "int main(void) {",
    ...statements,
    "return 0; }",
  ].join("\n");
  const run = Bun.spawnSync(["cc", "-Wall", "-x", "c", ...options, "-"], { stdin: Buffer.from(source) });
  if (run.exitCode !== 0) throw new Error(run.stderr.toString());
}
