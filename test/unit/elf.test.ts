/**
 * Goal: a program that gets its own loader requests that loader and takes its libraries from the same directory,
 * according to readelf and the program itself.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { librariesNeededBy, loaderOf, withLoader } from "../../scripts/lib/elf.ts";
import { run, sh } from "../support/shell.ts";

/** Prints the files that are mapped to run it. */
const PROGRAM = `
#include <math.h>
#include <stdio.h>
int main(int argc, char **argv) {
  char line[4096];
  FILE *maps = fopen("/proc/self/maps", "r");
  while (fgets(line, sizeof line, maps)) fputs(line, stdout);
  return cos(argc) > 2;
}
`;

/** The path of a loader must not be longer than the system's own. */
let directory: string;
let program: string;

/** With read-only data in a segment of its own, as in bun, and room behind it, which pages of another size leave. */
beforeAll(async () => {
  directory = mkdtempSync("/tmp/t-");
  program = join(directory, "program");
  writeFileSync(join(directory, "program.c"), PROGRAM);
  await sh(`cc -no-pie -Wl,-z,separate-code -Wl,-z,max-page-size=65536 -o '${program}' '${program}.c' -lm`);
});

afterAll(() => rmSync(directory, { recursive: true }));

test("names the libraries that it needs as readelf does", async () => {
  const listing = await sh(`readelf --dynamic '${program}' | sed -n 's/.*(NEEDED).*\\[\\(.*\\)\\]/\\1/p'`);
  expect(listing.split("\n")).toContain("libm.so.6");
  expect(librariesNeededBy(readFileSync(program))).toEqual(listing.split("\n"));
});

test("loads its libraries from beside its own loader", async () => {
  const image = readFileSync(program);
  const loader = loaderOf(image);
  expect(existsSync(loader)).toBe(true);
  const moved = withLoader(image, join(directory, "ld.so"), directory);
  copyFileSync(loader, join(directory, "ld.so"));
  for (const name of ["libc.so.6", "libm.so.6"]) {
    copyFileSync(
      await sh(`'${loader}' --list '${program}' | sed -n 's/.*${name} => \\(.*\\) (.*/\\1/p'`),
      join(directory, name),
    );
  }
  writeFileSync(`${program}-moved`, moved);
  chmodSync(`${program}-moved`, 0o755);

  expect(loaderOf(moved)).toBe(join(directory, "ld.so"));
  expect(await sh(`readelf --program-headers '${program}-moved'`)).toContain(
    `interpreter: ${directory}/ld.so]`,
  );
  const { status, stdout, stderr } = await run([`${program}-moved`]);
  expect([status, stderr]).toEqual([0, ""]);
  const mapped = [...new Set(stdout.match(/\/\S+$/gm))].toSorted();
  expect(mapped).toEqual(
    ["ld.so", "libc.so.6", "libm.so.6", "program-moved"].map((name) => join(directory, name)),
  );
});

test("what cannot be given one is refused", async () => {
  const image = readFileSync(program);
  expect(() => withLoader(image, `/usr/lib/${"x".repeat(40)}/ld.so`, "/usr/lib")).toThrow(
    "too long for its place",
  );
  expect(() => withLoader(image, "/l", `/${"x".repeat(100_000)}`)).toThrow(
    "no room behind its first segment",
  );
  expect(() => loaderOf(readFileSync(`${program}.c`))).toThrow("not a 64-bit ELF file");
  await sh(`cc -static -o '${program}-static' '${program}.c' -lm`);
  expect(() => loaderOf(readFileSync(`${program}-static`))).toThrow("not linked dynamically");
});
