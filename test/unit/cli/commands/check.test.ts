/** `tsbuse check`: its output, and the files that it must not touch. */
import { describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { pattern } from "../../../support/random.ts";
import { TemporaryDirectory } from "../../../support/temporary.ts";
import { execute, expectLine, tsbuse } from "../tsbuse.ts";

const MIB = 2 ** 20;

test.each([
  [["ramdisk", "4M"]],
  [["deadbeef"]],
  [["deadbeef", "64K"]],
  [["ramdisk", "1M", "--layer", "stats", "--layer", "cow"]],
])("%p: no fault, one line", (words) => {
  const { status, stdout } = tsbuse("check", ...words, "--seed", "7", "--ops", "100");
  expect(stdout).toBe("no fault found: 100 operations, seed 7\n");
  expect(status).toBe(0);
});

test("a seed that nobody has chosen is another each time", () => {
  const outputs = [0, 1].map(() => tsbuse("check", "ramdisk", "4K", "--ops", "5").stdout);
  for (const output of outputs) expect(output).toMatch(/^no fault found: 5 operations, seed \d+\n$/);
  expect(outputs[0]).not.toBe(outputs[1] ?? "");
});

describe("a fault", () => {
  const words = ["check", "ramdisk", "1M", "--layer", "error:command=trim,errno=ENOSPC", "--seed", "3"];
  const { status, stdout, stderr } = tsbuse(...words);

  test("is shown by numbered steps and a command line that finds it again", () => {
    const [step, repeat, ...more] = stdout.trimEnd().split("\n");
    expect(step).toMatch(/^1\. trim offset \d+ length 512$/);
    expect(more).toEqual([]);
    expect(repeat).toBe(
      "repeat: tsbuse check ramdisk 1M --layer error:command=trim,errno=ENOSPC --seed 3 --ops 1000",
    );
    expect(status).toBe(1);
  });

  test("is one line on stderr, with the seed", () => {
    expect(stderr).toBe(
      "tsbuse: the check found a fault with seed 3: step 1, trim: failed: ENOSPC: ENOSPC by the error layer\n",
    );
  });

  test("is found again", () => {
    const command = stdout.trimEnd().split("\n").at(-1)?.replace("repeat: tsbuse ", "").split(" ") ?? [];
    expect(tsbuse(...command)).toEqual({ status, stdout, stderr });
  });
});

describe("a file", () => {
  test("is not overwritten unless that is said, and is not with a layer that spares it", () => {
    using directory = new TemporaryDirectory();
    const path = directory.join("disk.img");
    const contents = pattern(MIB);
    writeFileSync(path, contents);
    const refused = tsbuse("check", "loop", path);
    expect(refused.status).toBe(2);
    expect(refused.stderr).toBe(
      `tsbuse: the check would overwrite ${path}: add --destroy if its contents may be lost, or --layer cow to keep it as it is\n`,
    );
    expect(tsbuse("check", "loop", path, "--layer", "cow", "--ops", "200").status).toBe(0);
    expect(Buffer.compare(readFileSync(path), contents)).toBe(0);
    expect(tsbuse("check", "loop", path, "--destroy", "--ops", "200").status).toBe(0);
    expect(Buffer.compare(readFileSync(path), contents)).not.toBe(0);
  });
});

const MODULE = `
  import { type BlockDevice } from "tsbuse";
  export default function (options: { broken?: string }): BlockDevice {
    const bytes = new Uint8Array(64 * 1024);
    return {
      size: bytes.length,
      async read(target, offset) { target.set(bytes.subarray(offset, offset + target.length)); },
      async write(source, offset) { bytes.set(source, options.broken === "yes" ? 0 : offset); },
    };
  }`;

describe("a module", () => {
  test("is checked with its options, from any directory", () => {
    using directory = new TemporaryDirectory();
    writeFileSync(directory.join("disk.ts"), MODULE);
    const main = new URL("../../../../src/main.ts", import.meta.url).pathname;
    const check = (...words: readonly string[]): ReturnType<typeof execute> =>
      execute(
        [process.execPath, main, "check", "./disk.ts", "--seed", "1", "--ops", "300", ...words],
        directory.path,
      );
    expect(check()).toEqual({ status: 0, stdout: "no fault found: 300 operations, seed 1\n", stderr: "" });
    const broken = check("--", "broken=yes");
    expect(broken.status).toBe(1);
    expect(broken.stdout).toMatch(
      /^1\. write .*\n(.*\n)?.*repeat: tsbuse check .\/disk.ts --seed 1 --ops 300 -- broken=yes\n$/,
    );
  });
});

// The words, the cause and the remedy.
test.each([
  [["ramdsk", "4M"], 'unknown device "ramdsk"', 'did you mean "ramdisk"?'],
  [["frobnicate"], 'unknown device "frobnicate"', "give ramdisk, loop, deadbeef or the path of a module"],
  [["ramdisk"], "an argument is missing", "give tsbuse check ramdisk SIZE"],
  [["loop"], "an argument is missing", "give tsbuse check loop FILE"],
  [["ramdisk", "2T"], "SIZE 2T is out of range", "give a size from 4K to 1T"],
  [["./a.ts", "4M"], 'unexpected argument "4M"', "after --, as KEY=VALUE"],
  [["deadbeef", "--seed", "-1"], '--seed "-1" is not a whole number', "from 0 to 4294967295"],
  [["deadbeef", "--ops", "0"], '--ops "0" is not a whole number', "from 1 to 10000000"],
  [["deadbeef", "--layer", "cw"], 'unknown layer "cw"', 'did you mean "cow"?'],
])("%p is a wrong command line", (words, cause, remedy) =>
  expectLine(tsbuse("check", ...words), 2, cause, remedy),
);
