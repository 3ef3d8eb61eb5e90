/** `tsbuse crash`: what it prints, repeats and continues, and how it refuses invalid input. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { kind } from "../../../../src/record/format.ts";
import { flushed, sectors, startRecord, wrote } from "../../../support/recording.ts";
import { TemporaryDirectory } from "../../../support/temporary.ts";
import { commandOf, execute, expectLine, type Ended } from "../tsbuse.ts";

const SIZE = 4096;
/** Sector 1 must not be newer than sector 0: a disk with the second write must have the first. */
const PAIR =
  'at() { tail -c +$(($1 + 1)) "$TSBUSE_IMAGE" | head -c 1 | tr -d "\\0"; }; [ -z "$(at 512)" ] || [ -n "$(at 0)" ]';

let directory: TemporaryDirectory;
let record: string;

beforeEach(() => {
  directory = new TemporaryDirectory();
  record = directory.join("record");
});
afterEach(() => directory[Symbol.dispose]());

function crash(...words: readonly string[]): Ended {
  return execute(["env", `TMPDIR=${directory.path}`, ...commandOf("crash", record, ...words)]);
}

/** Two writes in each of three epochs; the second needs the first. @param salt changes the data. */
function makeRecord(salt = 0): void {
  const writer = startRecord(record, SIZE);
  for (let epoch = 1; epoch <= 3; epoch += 1) {
    if (epoch === 3) writer.mark("third");
    wrote(writer, 0, sectors(0, 1, epoch + salt));
    wrote(writer, 512, sectors(1, 1, epoch + salt));
    flushed(writer);
  }
  writer.close();
}

test("no fault: how many states, and that there are no others", () => {
  makeRecord();
  const { status, stdout, stderr } = crash("--check", "true", "--seed", "3");
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  // Four combinations in each epoch; each begins with the last of the one before, which the mark makes a new state.
  expect(stdout).toMatch(
    /^no fault found: 11 states, and there are no others that were found, \d+ a second, seed 3\n$/,
  );
  expect(crash("--check", "true", "--seed", "3", "--states", "4").stdout).toMatch(
    /^no fault found: 4 states, \d/,
  );
  expect(crash("--check", "true", "--after", "third").stdout).toMatch(/^no fault found: 4 states, and/);
});

describe("a fault", () => {
  test("is shown with the fewest writes, saved as an image, and found again by the line that is printed", () => {
    makeRecord();
    const { status, stdout, stderr } = crash(
      "--check",
      `echo bad pair; ${PAIR}`,
      "--seed",
      "3",
      "--jobs",
      "2",
    );
    expect(stderr).toMatch(
      /^tsbuse: a power failure can do harm, state \d+ of seed 3: the checker exits with status 1\n$/,
    );
    expect(status).toBe(1);
    const [without, write, says, output, image, repeat, ...more] = stdout.trimEnd().split("\n");
    expect(more).toEqual([]);
    expect(without).toBe("without 1 of the 2 changes that were not durable:");
    expect(write).toMatch(/^ {2}write of 512 bytes at 0: (10 ){15}10 "\.{16}"$/);
    expect([says, output]).toEqual(["the checker says:", "  bad pair"]);
    expect(image).toBe(`image: ${record}.fault`);
    const bytes = readFileSync(`${record}.fault`);
    expect([bytes.length, bytes[0], bytes[512]]).toEqual([SIZE, 0, 0x11]);
    const words = /^repeat: (tsbuse crash .* --seed 3 --state \d+)$/.exec(repeat ?? "")?.[1] ?? "";
    const line = words.replace(/^tsbuse/, commandOf().join(" "));
    expect(execute(["sh", "-c", `TMPDIR=${directory.path} ${line}`])).toEqual({ status: 1, stdout, stderr });
  });

  test.each([
    [
      "hangs, with what it has started",
      "[ -z \"$(tr -d '\\0' < $TSBUSE_IMAGE)\" ] || sleep 1000 | cat",
      "was not done after 1 s",
    ],
    ["crashes", "[ -z \"$(tr -d '\\0' < $TSBUSE_IMAGE)\" ] || kill -SEGV $$", "is ended by SIGSEGV"],
  ])(
    "a checker that %s",
    (_, command, reason) => {
      makeRecord();
      const { status, stderr } = crash("--check", command, "--timeout", "1", "--jobs", "1", "--states", "2");
      expect(stderr).toContain(reason);
      expect(status).toBe(1);
    },
    60_000,
  );

  test("that is found once and not again is said to be so", () => {
    makeRecord();
    const once = `if mkdir ${directory.join("untouched")} || ! mkdir ${directory.join("once")}; then exit 0; fi; exit 9`;
    const { stderr } = crash("--check", once, "--jobs", "1");
    expect(stderr).toContain("once and not again: the checker may not always say the same");
  });
});

test("what a checker writes to the image, or does with it, the next one does not see", () => {
  makeRecord();
  const seen = directory.join("seen");
  const harm =
    'case $(($(wc -l < $SEEN) % 6)) in 4) rm "$I"; mkdir "$I";; 5) chmod 400 "$I";; 0) rm "$I";; 1) : > "$I";; 2) truncate -s 1M "$I";; *) echo harm > "$I";; esac';
  const check = `I=$TSBUSE_IMAGE SEEN=${seen}; sha1sum < $I >> ${seen}; ${harm}; ls $TSBUSE_SCRATCH >> ${seen}; touch $TSBUSE_SCRATCH/x`;
  expect(crash("--check", check, "--jobs", "1", "--seed", "1").status).toBe(0);
  const other = directory.join("other");
  expect(crash("--check", `sha1sum < $TSBUSE_IMAGE >> ${other}`, "--jobs", "1", "--seed", "1").status).toBe(
    0,
  );
  expect(readFileSync(seen, "utf8")).toBe(readFileSync(other, "utf8"));
});

test("--continue goes on where it was interrupted, and not with another record", async () => {
  makeRecord();
  const [state, log] = [directory.join("state"), directory.join("log")];
  const check = `echo "$(sha1sum < $TSBUSE_IMAGE) $TSBUSE_MARK" >> ${log}`;
  crash("--check", check, "--states", "5", "--continue", state, "--jobs", "1");
  crash("--check", check, "--continue", state, "--jobs", "1");
  const lines = readFileSync(log, "utf8").trimEnd().split("\n");
  // Each of the two runs checks the untouched disk first.
  expect(new Set(lines.toSpliced(6, 1).slice(1)).size).toBe(11);
  expect(lines).toHaveLength(13);
  const before = readFileSync(state, "utf8");
  expect(crash("--check", check, "--continue", state, "--state", "2").status).toBe(0);
  expect(readFileSync(state, "utf8")).toBe(before);
  const words = ["--check", "true", "--continue", state];
  const same = ["--check", check, "--continue", state];
  expectLine(
    crash(...same, "--after", "third"),
    2,
    "continues another record",
    "give those, or another file",
  );
  expectLine(crash(...words), 2, "with another --base, --check", "give those, or another file");
  rmSync(record);
  makeRecord(4);
  expectLine(crash(...same), 2, "continues another record", "give those");
  writeFileSync(state, "[1]");
  expectLine(crash(...words), 2, "is not of tsbuse crash --continue", "give another name");
});

test("a signal ends it with what it has started, and leaves nothing behind", async () => {
  makeRecord();
  const started = directory.join("started");
  const check = `[ -e ${started} ] && { echo $$ > ${started}.new; mv ${started}.new ${started}.pid; sleep 1000; }; touch ${started}`;
  const words = commandOf(
    "crash",
    record,
    "--check",
    check,
    "--jobs",
    "1",
    "--continue",
    directory.join("state"),
  );
  const child = Bun.spawn(words, {
    env: { ...process.env, TMPDIR: directory.path },
    stdout: "ignore",
    stderr: "pipe",
  });
  while (!existsSync(`${started}.pid`)) await Bun.sleep(5);
  child.kill("SIGTERM");
  expect(await child.exited).toBe(2);
  expect(await child.stderr.text()).toBe("tsbuse: stopped after 0 states: the same command goes on\n");
  const pid = Number(readFileSync(`${started}.pid`, "utf8"));
  expect(() => process.kill(pid, 0)).toThrow();
  expect(readdirSync(directory.path).filter((name) => name.startsWith("tsbuse-crash-"))).toEqual([]);
});

test("what is trimmed and zeroed of a large disk takes neither time nor space", () => {
  const [size, used] = [2 ** 40, directory.join("used")];
  const writer = startRecord(record, size);
  wrote(writer, 2 ** 30, sectors(0, 8, 1));
  for (const what of [kind.trim, kind.zero]) writer.end(writer.begin(what, 0, size, false), false);
  flushed(writer);
  wrote(writer, 0, sectors(0, 8, 1));
  writer.close();
  const check = `du -k $TSBUSE_IMAGE | cut -f 1 >> ${used}; echo x | dd of=$TSBUSE_IMAGE seek=1M conv=notrunc`;
  const base = directory.join("base");
  writeFileSync(base, "");
  truncateSync(base, size);
  for (const words of [[], ["--base", base]]) {
    rmSync(used, { force: true });
    const { status, stderr } = crash(
      "--check",
      check,
      "--jobs",
      "1",
      "--states",
      "20",
      "--seed",
      "1",
      ...words,
    );
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(readFileSync(used, "utf8")).toContain("\n4\n");
    expect(Math.max(...readFileSync(used, "utf8").trim().split("\n").map(Number))).toBeLessThanOrEqual(8);
  }
});

test("a record that is cut off is used up to there, with a warning", () => {
  makeRecord();
  truncateSync(record, 1000);
  const { status, stdout, stderr } = crash("--check", "true");
  expect(stderr).toMatch(
    /^tsbuse: warning: .*record ends in the middle of a record: it is used up to byte \d+\n$/,
  );
  expect(stdout).toStartWith("no fault found: 2 states");
  expect(status).toBe(0);
});

describe("bad input", () => {
  const change = (at: number, byte: number) => (): void => {
    makeRecord();
    const bytes = readFileSync(record);
    bytes[at] = byte;
    writeFileSync(record, bytes);
  };
  type Row = readonly [
    name: string,
    make: () => void,
    words: readonly string[],
    cause: string,
    remedy: string,
  ];
  const rows: readonly Row[] = [
    ["no record", () => undefined, [], "it does not exist", "give a record"],
    [
      "something else",
      () => writeFileSync(record, "#!/bin/sh\n"),
      [],
      "is not a record of tsbuse",
      "--layer record",
    ],
    ["an empty file", () => writeFileSync(record, ""), [], "is empty, nothing was recorded", "give another"],
    ["another version", change(16, 9), [], "version 9, this tsbuse knows 2", "use the one"],
    ["a damaged header", change(24, 9), [], "is damaged", "record once more"],
    [
      "a base of another size",
      makeRecord,
      ["--base", import.meta.path],
      "the record is of a disk of 4096",
      "give",
    ],
    ["no base", makeRecord, ["--base", "/none"], "/none cannot be opened", "ENOENT"],
    ["no such mark", makeRecord, ["--after", "fourth"], 'no mark "fourth"', 'it has "third"'],
    [
      "a checker that always fails",
      makeRecord,
      ["--check", "echo no fs; exit 8"],
      'exits with status 8 ("no fs") on the',
      "--base",
    ],
    [
      "a disk larger than there is room for",
      () => flushed(startRecord(record, 2 ** 62)),
      [],
      "no room for an image",
      "TMPDIR",
    ],
  ];
  test.each(rows)("%s", (_, make, words, cause, remedy) => {
    make();
    const check = words[0] === "--check" ? [] : ["--check", "true"];
    expectLine(crash(...check, ...words), 2, cause, remedy);
  });

  test.each([
    [[], "what is to be found?", "give --check"],
    [["--check", "sqlite"], "needs to know where", "give sqlite:PATH"],
    [["--check", "ext4:x"], "takes nothing more", "leave out"],
  ])("%p", (words, cause, remedy) => expectLine(crash(...words), 2, cause, remedy));
});
