/** What README and the pages show works: the device passes the check, and links, commands and options are real. */
import { expect, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { checkDevice } from "../../src/check/check.ts";
import { allCommands } from "../../src/cli/commands.ts";
import { allOptions, GENERAL_OPTIONS, SERVING_OPTIONS } from "../../src/cli/help/documentation.ts";
import { loadDevice } from "../../src/module/load.ts";
import { TemporaryDirectory } from "../support/temporary.ts";

const ROOT = join(import.meta.dir, "../..");
const PAGES = [
  "README.md",
  "CONTRIBUTING.md",
  "bench/README.md",
  "docs/architecture.md",
  "docs/devices.md",
  "docs/operations.md",
  "docs/rescue.md",
] as const;

const read = (page: string): string => readFileSync(join(ROOT, page), "utf8");

test("the device to begin with does what it says, and is without fault", async () => {
  const example =
    /^ {4}\/\/ counting\.ts[\s\S]*?^ {4}export default device;$/m.exec(read("README.md"))?.[0] ?? "";
  using directory = new TemporaryDirectory();
  const path = directory.join("counting.ts");
  writeFileSync(path, example.replaceAll(/^ {4}/gm, ""));
  const device = await loadDevice(path, {});
  const target = new Uint8Array(1024).fill(0xff);
  await device.read(target, 7 * 512);
  const text = Buffer.from(target).toString();
  expect(text.split("\0").filter((part) => part !== "")).toEqual(["block 7\n", "block 8\n"]);
  expect(await checkDevice(() => loadDevice(path, {}), { ops: 200 })).toMatchObject({ failure: undefined });
});

/** The anchor that GitHub gives a heading. */
function anchorOf(heading: string): string {
  return heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
    .replaceAll(" ", "-");
}

function anchorsIn(page: string): string[] {
  return [...read(page).matchAll(/^#+ (.+)$/gm)].map(([, heading = ""]) => anchorOf(heading));
}

test.each(PAGES)("the files and headings that %s points to are there", (page) => {
  const links = [...read(page).matchAll(/\]\(([^):]+)\)/g)].map(([, link = ""]) => link);
  const dead = links.filter((link) => {
    const [file = "", anchor] = link.split("#");
    const path = file === "" ? page : normalize(join(dirname(page), file));
    return !existsSync(join(ROOT, path)) || (anchor !== undefined && !anchorsIn(path).includes(anchor));
  });
  expect(dead).toEqual([]);
});

test("every page is linked from README, which names the two commands that set everything up", () => {
  const readme = read("README.md");
  for (const page of PAGES.slice(1)) expect(readme).toContain(`](${page})`);
  for (const script of ["./scripts/demo", "./scripts/test"]) expect(readme).toContain(script);
});

test("architecture names source files by links alone, so that they are looked for", () => {
  const linked = [...read("docs/architecture.md").matchAll(/\]\(\.\.\/(src\/[^)]+)\)/g)];
  expect(linked.length).toBeGreaterThan(25);
  const text = read("docs/architecture.md").replaceAll(/\[[^\]]*\]\([^)]*\)/g, "");
  const named = [...text.matchAll(/\bsrc\/[\w/.-]+\w/g)].map(([path]) => path);
  expect(named.filter((path) => !existsSync(join(ROOT, path)))).toEqual([]);
});

/** The commands in a page's blocks: the words up to a comment or an operator of the shell. */
function commandsIn(page: string): string[][] {
  const lines = read(page).matchAll(/^ {4}(?:sudo (?:-E )?)?tsbuse (?! )([^#>|&\n]*)/gm);
  return [...lines].map(([, words = ""]) => words.trim().split(/\s+/));
}

test.each(PAGES)("the commands in %s have the names and options of real ones", async (page) => {
  const known = new Map((await allCommands()).map((one) => [one.text.name, allOptions(one)]));
  const wrong = commandsIn(page).filter(([name = "", ...words]) => {
    if (/^[A-Z]+$/.test(name)) return false;
    const options = known.get(name);
    // Of a command that is given to another one, its words count as well.
    const inner = words.flatMap((word) => known.get(word) ?? []);
    const all = [...(options ?? []), ...inner, ...GENERAL_OPTIONS];
    const names = new Set(all.map((option) => `--${option.name}`));
    const given = words.filter((word) => /^--[a-z]/.test(word));
    return options === undefined || given.some((word) => !names.has(word));
  });
  expect(wrong).toEqual([]);
});

test("the pages have commands to look at", () => {
  expect(PAGES.flatMap(commandsIn).length).toBeGreaterThan(40);
});

test("the table of options has each one that every device takes, once, with what stands for its value", () => {
  const table = /^Every device takes:\n\n(?:\|.*\n)+/m.exec(read("docs/operations.md"))?.[0] ?? "";
  const terms = [...table.matchAll(/^\| (`.*?`) \|/gm)].map(([, cell = ""]) => cell);
  const listed = terms.flatMap((cell) => cell.replaceAll("`", "").split(", "));
  const options = SERVING_OPTIONS.flatMap(([, group]) => group);
  const defined = options.map(({ name, value }) => [`--${name}`, value ?? []].flat().join(" "));
  expect(listed.toSorted()).toEqual(defined.toSorted());
});
