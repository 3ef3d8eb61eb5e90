/** The manual page: complete, right as roff, and always the same. */
import { describe, expect, test } from "bun:test";
import { allCommands } from "../../../../src/cli/commands.ts";
import { manPage } from "../../../../src/cli/help/man-page.ts";
import { tsbuse } from "../tsbuse.ts";

const commands = await allCommands();
const page = tsbuse("man");

const SECTIONS = [
  "NAME",
  "SYNOPSIS",
  "DESCRIPTION",
  "COMMANDS",
  "COMMON OPTIONS",
  "LAYERS",
  "EXIT STATUS",
  "ENVIRONMENT",
  "FILES",
  "EXAMPLES",
  "NOTES",
  "SEE ALSO",
];

test("is on stdout, and the same each time", () => {
  expect(page.stderr).toBe("");
  expect(page.status).toBe(0);
  expect(page.stdout).toBe(`${manPage(commands)}\n`);
});

test("has the sections of a manual page, in order", () => {
  expect(page.stdout).toMatch(/^\.TH TSBUSE 1 "" "tsbuse \d+\.\d+\.\d+" "User Commands"\n/);
  expect([...page.stdout.matchAll(/^\.SH "(.*)"$/gm)].map(([, name]) => name)).toEqual(SECTIONS);
});

test.each(commands)("has all of $text.name", ({ text, args }) => {
  expect(page.stdout).toContain(`\n.SS "${text.name.replaceAll("-", "\\-")}`);
  expect(page.stdout).toContain(`\n${text.summary.replaceAll("-", "\\-")}.\n`);
  for (const [name, { type }] of Object.entries(args)) {
    if (type !== "positional") expect(page.stdout).toContain(`\\fB\\-\\-${name.replaceAll("-", "\\-")}\\fR`);
  }
});

describe("roff", () => {
  const lines = page.stdout.trimEnd().split("\n");

  test("only requests that are meant begin with a full stop, and nothing with an apostrophe", () => {
    for (const line of lines) expect(line).not.toMatch(/^\.(?!(TH|SH|SS|PP|TP|RS|RE|EX|EE|B|I|BR|br)\b)|^'/);
    expect(lines).not.toContain("");
  });

  test("every hyphen, quote and backslash of a text is escaped", () => {
    for (const line of lines) {
      expect(line).not.toMatch(/(?<!\\)-/);
      if (!line.startsWith(".")) expect(line).not.toMatch(/["'`^~]/);
      expect(line).not.toMatch(/\\(?!-|&|e|f[BIR]|\((aq|dq|ga|ha|ti))/);
    }
  });

  test("text that looks like a request is text", () => {
    const [first] = commands;
    if (first === undefined) throw new Error("no command");
    const odd = { ...first, text: { ...first.text, details: [".SH no section", "'tis \\fBnot\\fR bold"] } };
    expect(manPage([odd])).toContain("\n\\&.SH no section\n");
    expect(manPage([odd])).toContain("\n\\&\\(aqtis \\efBnot\\efR bold\n");
  });

  test.skipIf(Bun.which("groff") === null)(
    "groff has no complaint, and prints it as it was meant (needs groff)",
    () => {
      const groff = Bun.spawnSync(["groff", "-man", "-ww", "-Tascii", "-P-cbu", "-rLL=200n"], {
        stdin: Buffer.from(page.stdout),
      });
      expect(groff.stderr.toString()).toBe("");
      expect(groff.exitCode).toBe(0);
      const text = groff.stdout.toString();
      for (const { text: each } of commands)
        for (const { line } of each.examples) expect(text).toContain(`  ${line}\n`);
      expect(text).toContain("nbd-client(8), losetup(8)");
      expect(text).toContain("--block-size BYTES");
    },
  );
});
