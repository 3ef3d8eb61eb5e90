/** The help, against the commands it describes. */
import { describe, expect, test } from "bun:test";
import { allCommands } from "../../../../src/cli/commands.ts";
import packageJson from "../../../../package.json" with { type: "json" };
import { commandOf, tsbuse } from "../tsbuse.ts";

const commands = await allCommands();

const COMMON = ["--read-only", "--block-size BYTES", "--timeout SECONDS", "--run COMMAND", "--daemon"];

describe.each(commands)("$text.name", ({ text, args }) => {
  const { name, synopsis, summary, kind, examples } = text;

  test("is documented in full", () => {
    const positionals = Object.values(args).filter(({ type }) => type === "positional");
    expect(positionals).toHaveLength(synopsis.split(" ").filter((word) => word !== "").length);
    for (const { description = "" } of Object.values(args)) expect(description).toMatch(/^\S.*[^.]$/);
    expect(summary).toMatch(/^[A-Z].*[^.]$/);
    expect(examples.length).toBeGreaterThan(0);
    for (const { line } of examples) expect(line).toContain(`tsbuse ${name}`);
  });

  test("--help shows all of it, on stdout", () => {
    const { status, stdout, stderr } = tsbuse(name, "--help");
    expect(stderr).toBe("");
    expect(status).toBe(0);
    expect(stdout).toStartWith(`tsbuse ${name}: ${summary}\n\nUsage: tsbuse ${name} [options]`);
    expect(stdout).toContain(`[options] ${synopsis}`.trimEnd());
    for (const word of synopsis.split(" "))
      expect(stdout).toMatch(new RegExp(`^  ${word.replaceAll(/[[\]]/g, "")}`, "m"));
    for (const option of optionNames(args))
      expect(stdout).toMatch(new RegExp(`^  (-., )?--${option}\\b`, "m"));
    for (const { line } of examples) expect(stdout).toContain(`\n  ${line}\n`);
    // They come after the command's own options.
    expect(stdout.includes("\nOptions of every device:\n")).toBe(kind === "device");
    const [own = ""] = stdout.split("\nOptions of every device:\n");
    expect(own).toContain("\nExamples:\n");
  });

  test("the help is the same however it is asked for", () => {
    const { stdout } = tsbuse(name, "--help");
    expect(tsbuse(name, "-h").stdout).toBe(stdout);
    expect(tsbuse("help", name).stdout).toBe(stdout);
    // Also from the middle of an invalid command line.
    expect(tsbuse(name, "--frobnicate", "--help", "more").stdout).toBe(stdout);
  });

  test("the help fits 80 columns, but for lines to be copied", () => {
    const copied = new Set(examples.map(({ line }) => `  ${line}`));
    for (const line of tsbuse(name, "--help").stdout.split("\n")) {
      if (!copied.has(line)) expect(line.length).toBeLessThanOrEqual(80);
      expect(line).toBe(line.trimEnd());
    }
  });
});

test("an option and what it does are aligned, and long texts are wrapped below", () => {
  const { stdout } = tsbuse("disconnect", "--help");
  expect(stdout).toContain(`
Arguments:
  TARGET  /dev/nbdN or /dev/ublkbN

Options:
  --force     Even if it is in use or hangs: what was not written back is lost
  -h, --help  Show this help
`);
  expect(tsbuse("ramdisk", "--help").stdout).toContain(`
  --run COMMAND             Run a shell command with $TSBUSE_DEVICE set, detach
                            after it, and exit with its status
`);
});

describe("the root help", () => {
  const { status, stdout, stderr } = tsbuse("--help");

  test("is on stdout", () => {
    expect(stderr).toBe("");
    expect(status).toBe(0);
    expect(tsbuse("-h").stdout).toBe(stdout);
    expect(tsbuse("help").stdout).toBe(stdout);
  });

  test("has every command, the common options once, and the exit statuses", () => {
    for (const { text } of commands)
      expect(stdout).toMatch(new RegExp(`^  ${text.name}\\b.*  ${text.summary}$`, "m"));
    for (const option of COMMON) expect(stdout.split(`  ${option} `)).toHaveLength(2);
    for (const exit of ["0  Success", "1  A failure", "2  A wrong command line"])
      expect(stdout).toContain(`\n  ${exit}`);
    expect(stdout).toContain("tsbuse COMMAND --help");
  });

  test("fits 80 columns", () => {
    for (const line of stdout.split("\n")) expect(line.length).toBeLessThanOrEqual(80);
  });
});

test.each(["--version", "-V"])("%s", (option) => {
  const { status, stdout, stderr } = tsbuse(option);
  expect(stdout).toBe(`tsbuse ${packageJson.version}\n`);
  expect(stderr).toBe("");
  expect(status).toBe(0);
});

test("--version --verbose tells what the build put in, and from its sources that there was none", () => {
  const [bun = "", ...words] = commandOf("--version", "--verbose");
  const detailsOf = (...options: string[]): string =>
    Bun.spawnSync([bun, ...options, ...words]).stdout.toString();
  const start = `tsbuse ${packageJson.version}\ncommit`;
  const end = `runtime bun ${Bun.version}\ntarget`;
  expect(detailsOf()).toBe(`${start} unknown, run from its sources\n${end} linux-${process.arch}\n`);
  const define = `TSBUSE_BUILD=${JSON.stringify({ commit: "abc", target: "linux-vax" })}`;
  expect(detailsOf("--define", define)).toBe(`${start} abc\n${end} linux-vax\n`);
});

function optionNames(args: Readonly<Record<string, { readonly type?: string }>>): string[] {
  return Object.entries(args).flatMap(([name, { type }]) => (type === "positional" ? [] : [name]));
}
