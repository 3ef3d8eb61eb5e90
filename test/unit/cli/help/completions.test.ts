/** The completion scripts in their shells. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { allCommands } from "../../../../src/cli/commands.ts";
import { TemporaryDirectory } from "../../../support/temporary.ts";
import { execute, tsbuse } from "../tsbuse.ts";

const commands = await allCommands();

/** The scripts, and files with names to complete. */
const temporary = new TemporaryDirectory();
const directory = temporary.path;
afterAll(() => temporary[Symbol.dispose]());
for (const name of ["disk.img", "disk two.img", "other.iso"]) writeFileSync(join(directory, name), "");

/** Replaces /sys/block: free nodes, one with a size, one with a process, and another disk. */
const sysBlock = join(directory, "sys");
for (const [name, sectors] of [
  ["nbd0", "0"],
  ["nbd1", "0"],
  ["nbd10", "0"],
  ["nbd2", "131072"],
  ["nbd3", "0"],
  ["sda", "131072"],
] as const) {
  mkdirSync(join(sysBlock, name), { recursive: true });
  writeFileSync(join(sysBlock, name, "size"), `${sectors}\n`);
}
writeFileSync(join(sysBlock, "nbd3/pid"), "4711\n");

/** Possible targets. */
const TARGETS = ["/dev/nbd0", "/dev/nbd1", "/dev/nbd10", "auto", "nbd", "ublk"];

const SHELLS = ["bash", "zsh", "fish"] as const;

for (const shell of SHELLS) {
  const { status, stdout, stderr } = tsbuse("completions", shell);
  const path = join(directory, `${shell}.script`);
  writeFileSync(path, stdout.replaceAll("/sys/block", sysBlock));

  describe(shell, () => {
    test("the script is on stdout", () => {
      expect(stderr).toBe("");
      expect(status).toBe(0);
      expect(stdout).toContain(`tsbuse completions ${shell}`);
    });

    test.skipIf(Bun.which(shell) === null)(`is valid (needs ${shell})`, () => {
      expect(execute([shell, "-n", path])).toEqual({ status: 0, stdout: "", stderr: "" });
    });

    test.each(commands)("has all of $text.name", ({ text, args }) => {
      expect(stdout).toMatch(new RegExp(`\\b${text.name}\\b`));
      if (shell !== "bash") expect(stdout).toContain(text.summary);
      for (const [name, definition] of Object.entries(args)) {
        if (definition.type === "positional") continue;
        expect(stdout).toContain(shell === "fish" ? ` -l ${name} ` : `--${name}`);
        const description = definition.description ?? "";
        if (shell !== "bash" && !/[:'[\]\\]/.test(description)) expect(stdout).toContain(description);
      }
    });
  });
}

/** Words typed after `tsbuse`, the last one unfinished, and its possible completions. */
const CASES: readonly (readonly [string, string[]])[] = [
  ["ram", ["ramdisk"]],
  ["do", ["doctor"]],
  ["d", ["deadbeef", "disconnect", "doctor"]],
  ["nothing-begins-like-this", []],
  ["help l", ["list", "loop"]],
  ["help list ", []],
  ["ramdisk ", []],
  ["ramdisk 4M ", TARGETS],
  ["ramdisk 4M au", ["auto"]],
  ["ramdisk 4M /dev/nbd1", ["/dev/nbd1", "/dev/nbd10"]],
  ["ramdisk 4M /dev/nbd9999 ", []],
  ["ramdisk --read-only 4M ", TARGETS],
  ["ramdisk --block-size ", []],
  ["ramdisk --block-size 512 ", []],
  ["ramdisk --block-size 512 4M ", TARGETS],
  ["ramdisk -v 4M ", TARGETS],
  ["ramdisk --re", ["--read-only", "--recover", "--request-timeout", "--resume"]],
  ["ramdisk 4M auto --p", ["--pid-file", "--populate"]],
  ["deadbeef a", ["auto"]],
  ["deadbeef 64K a", ["auto"]],
  ["deadbeef 64K auto ", []],
  ["loop oth", ["other.iso"]],
  ["loop disk", ["disk two.img", "disk.img"]],
  ["loop disk.img a", ["auto"]],
  ["loop --pid-file oth", ["other.iso"]],
  ["loop --size oth", []],
  ["disconnect ", ["/dev/nbd2", "/dev/nbd3"]],
  ["disconnect /dev/nbd2 ", []],
  ["disconnect a", []],
  ["list --js", ["--json"]],
  ["list ", []],
  ["completions ", ["bash", "fish", "zsh"]],
  ["completions bash ", []],
];

describe("in bash", () => {
  const HARNESS = `source "$1"; shift
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
    _tsbuse
    printf "%s\\n" "\${COMPREPLY[@]}"`;
  const complete = (...words: readonly string[]): string[] =>
    candidates(["bash", "--norc", "-c", HARNESS, "bash", join(directory, "bash.script"), "tsbuse", ...words]);

  test.each(CASES)("%p", (words, expected) => {
    expect(complete(...words.split(" "))).toEqual(expected);
  });

  test("the first word can be any command, or an option of the program", () => {
    const names = commands.map(({ text }) => text.name);
    const more = ["--help", "--version", "-V", "-h", "help"];
    expect(complete("")).toEqual([...names, ...more].toSorted());
  });

  test("--option=value, which bash hands over as three words", () => {
    expect(complete("loop", "--pid-file", "=", "oth")).toEqual(["other.iso"]);
    expect(complete("ramdisk", "--block-size", "=", "512", "4M", "")).toEqual(TARGETS);
  });

  test("an option that was given is not offered again", () => {
    expect(complete("list", "--json", "--")).toEqual(["--help"]);
  });
});

describe("in fish", () => {
  const script = join(directory, "fish.script");
  const complete = (words: string): string[] =>
    candidates([
      "fish",
      "--no-config",
      "-c",
      'source $argv[1]; complete -C "$argv[2]"',
      script,
      `tsbuse ${words}`,
    ])
      // A tab and the description follow. Blanks in names are escaped.
      .map((line) => (line.split("\t")[0] ?? "").replaceAll("\\ ", " "))
      .toSorted();

  test.skipIf(Bun.which("fish") === null).each(CASES)("%p (needs fish)", (words, expected) => {
    expect(complete(words)).toEqual(expected);
  });
});

/** The lines that a program prints, sorted. */
function candidates(command: readonly string[]): string[] {
  const { status, stdout, stderr } = execute(command, directory);
  expect(stderr).toBe("");
  expect(status).toBe(0);
  return stdout
    .split("\n")
    .filter((line) => line !== "")
    .toSorted();
}
