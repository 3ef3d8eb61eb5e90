/** The C programs of the benchmark: built with cc, for this machine. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { Failure } from "../lib/failure.ts";
import { ROOT } from "../lib/suites.ts";

const DIRECTORY = join(ROOT, "dist/bench");

/** Where the binary of `NAME.c` is. */
export function binaryOf(name: string): string {
  return join(DIRECTORY, name);
}

/** Builds `NAME.c`, which lies beside this file. @throws Failure */
export async function compile(name: string, options: readonly string[] = []): Promise<void> {
  mkdirSync(DIRECTORY, { recursive: true });
  const source = join(import.meta.dir, `${name}.c`);
  const words = ["-O2", "-Wall", "-Wextra", "-Werror", ...options, "-o", binaryOf(name), source];
  const cc = Bun.spawn(["cc", ...words], { stdio: ["ignore", "ignore", "inherit"] });
  if ((await cc.exited) !== 0) throw new Failure(`${name}.c cannot be built: see above`);
}
