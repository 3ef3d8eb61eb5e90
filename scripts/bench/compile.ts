/** Builds the C programs of the benchmark with cc, for this machine. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { Failure } from "../lib/failure.ts";
import { ROOT } from "../lib/suites.ts";

const DIRECTORY = join(ROOT, "dist/bench");

/** The path of the binary of `NAME.c`. */
export function binaryOf(name: string): string {
  return join(DIRECTORY, name);
}

/** Builds `NAME.c`, which is in this directory. @throws Failure */
export async function compile(name: string, options: readonly string[] = []): Promise<void> {
  mkdirSync(DIRECTORY, { recursive: true });
  const source = join(import.meta.dir, `${name}.c`);
  const words = ["-O2", "-Wall", "-Wextra", "-Werror", ...options, "-o", binaryOf(name), source];
  const cc = Bun.spawn(["cc", ...words], { stdio: ["ignore", "ignore", "inherit"] });
  if ((await cc.exited) !== 0) throw new Failure(`${name}.c cannot be built: see above`);
}
