/** `tsbuse crash` if it is killed, if a second one runs, or if its checkers leave something behind. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { flushed, sectors, startRecord, wrote } from "../../../support/recording.ts";
import { until } from "../../../support/shell.ts";
import { TemporaryDirectory } from "../../../support/temporary.ts";
import { commandOf, execute, expectLine, type Ended } from "../tsbuse.ts";

const SIZE = 4096;
/** Three epochs of four states each; each epoch begins with the last state of the one before. */
const STATES = 10;

let directory: TemporaryDirectory;
let record: string;

beforeEach(() => {
  directory = new TemporaryDirectory();
  record = directory.join("record");
  const writer = startRecord(record, SIZE);
  for (let epoch = 1; epoch <= 3; epoch += 1) {
    for (const sector of [0, 1]) wrote(writer, sector * 512, sectors(sector, 1, epoch));
    flushed(writer);
  }
  writer.close();
});
afterEach(() => directory[Symbol.dispose]());

function words(...more: readonly string[]): string[] {
  return ["env", `TMPDIR=${directory.path}`, ...commandOf("crash", record, "--seed", "1", ...more)];
}

function crash(...more: readonly string[]): Ended {
  return execute(words(...more));
}

function linesOf(path: string): string[] {
  return existsSync(path) ? readFileSync(path, "utf8").trimEnd().split("\n") : [];
}

function isRunning(pid: number): boolean {
  return existsSync(`/proc/${pid}`) && !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
}

const runDirectories = (): string[] =>
  readdirSync(directory.path).filter((name) => name.startsWith("tsbuse-crash-"));

test("killed again and again it tries every state, and the next run takes away what is left", async () => {
  const [log, pids, state] = [directory.join("log"), directory.join("pids"), directory.join("state")];
  const check = `echo $$ >> ${pids}; sha1sum < $TSBUSE_IMAGE >> ${log}; [ $(wc -l < ${pids}) -gt 20 ] || sleep 1000`;
  const jobs = ["--check", check, "--continue", state, "--jobs", "2"];
  // The first one checks the untouched disk.
  writeFileSync(pids, "0\n".repeat(20));
  const first = Bun.spawn(words(...jobs, "--states", "3"), { stdio: ["ignore", "ignore", "ignore"] });
  expect(await first.exited).toBe(0);
  const left: number[] = [];
  for (let kills = 1; kills <= 3; kills += 1) {
    writeFileSync(pids, kills === 1 ? "" : "0\n".repeat(20));
    const before = linesOf(log).length;
    const child = Bun.spawn(words(...jobs), { stdio: ["ignore", "ignore", "ignore"] });
    await until("a checker is at work", () => Promise.resolve(linesOf(log).length > before));
    child.kill("SIGKILL");
    await child.exited;
    left.push(
      ...linesOf(pids)
        .map(Number)
        .filter((pid) => pid > 0),
    );
  }
  writeFileSync(pids, "0\n".repeat(20));
  expect(crash(...jobs).status).toBe(0);
  expect(new Set(linesOf(log)).size).toBe(STATES);
  await until("they have ended", () => Promise.resolve(!left.some(isRunning)));
  expect(runDirectories()).toEqual([]);
});

test("two at once use one record, and not one file of --continue", async () => {
  const [gate, state] = [directory.join("gate"), directory.join("state")];
  const check = `touch ${gate}.at; until [ -e ${gate} ]; do sleep 0.01; done`;
  const one = Bun.spawn(words("--check", check, "--continue", state), {
    stdio: ["ignore", "pipe", "ignore"],
  });
  await until("it is at work", () => Promise.resolve(existsSync(`${gate}.at`)));
  expectLine(
    crash("--check", "true", "--continue", state),
    2,
    "is in use by another tsbuse crash",
    "give another",
  );
  expect(crash("--check", "true").status).toBe(0);
  writeFileSync(gate, "");
  expect(await one.exited).toBe(0);
  expect(await one.stdout.text()).toStartWith(`no fault found: ${STATES} states`);
});

test("--continue does not go on with a base that holds something else", () => {
  const [base, state] = [directory.join("base"), directory.join("state")];
  const jobs = ["--check", "true", "--base", base, "--continue", state];
  writeFileSync(base, new Uint8Array(SIZE));
  expect(crash(...jobs, "--states", "2").status).toBe(0);
  // The same, whenever it was made.
  writeFileSync(base, new Uint8Array(SIZE));
  expect(crash(...jobs, "--states", "2").status).toBe(0);
  writeFileSync(base, new Uint8Array(SIZE).fill(1));
  expectLine(
    crash(...jobs),
    2,
    "continues another record, or with another --base",
    "give those, or another file",
  );
});

test("what a checker leaves running ends with it, and the next one does not see what that does", async () => {
  const [seen, pids] = [directory.join("seen"), directory.join("pids")];
  const stray = `setsid sh -c 'echo $$ >> ${pids}; sleep 0.05; echo harm > $TSBUSE_IMAGE; sleep 1000'`;
  const check = `sha1sum < $TSBUSE_IMAGE >> ${seen}; before=$(wc -l < ${pids}); ${stray} & sleep 1000 &
    until [ $(wc -l < ${pids}) -gt $before ]; do sleep 0.01; done`;
  writeFileSync(pids, "");
  expect(crash("--check", check, "--jobs", "1").status).toBe(0);
  expect(new Set(linesOf(seen)).size).toBe(STATES);
  expect(linesOf(pids).map(Number).filter(isRunning)).toEqual([]);
});

test("a daemon of a checker's that has ended takes no number from others", () => {
  const [counts, ended] = [directory.join("counts"), directory.join("ended")];
  // The run's children: this checker, its daemon, and perhaps the previous one.
  const check = `rm -f ${ended}; ( setsid sh -c ': > ${ended}' & ); until [ -e ${ended} ]; do sleep 0.01; done
    wc -w < /proc/$PPID/task/$PPID/children >> ${counts}`;
  expect(crash("--check", check, "--jobs", "1").status).toBe(0);
  const found = linesOf(counts).map(Number);
  expect(found.length).toBeGreaterThanOrEqual(STATES);
  expect(Math.max(...found)).toBeLessThanOrEqual(3);
});

test("a run that is stopped for longer than a checker may take does not blame the checker", async () => {
  const at = directory.join("at");
  // The checker stops its parent itself, so even on a busy machine it has not reached its time limit by then.
  const check = `[ -e ${at} ] || { touch ${at}; kill -STOP $PPID; touch ${at}.end; }`;
  const child = Bun.spawn(words("--check", check, "--timeout", "2", "--jobs", "1").slice(2), {
    env: { ...process.env, TMPDIR: directory.path },
    stdio: ["ignore", "pipe", "ignore"],
  });
  await until("the checker is done", () => Promise.resolve(existsSync(`${at}.end`)));
  await Bun.sleep(2500);
  child.kill("SIGCONT");
  expect(await child.stdout.text()).toStartWith(`no fault found: ${STATES} states`);
});

test.each(["kill -9 $$", "sh -c 'kill -9 $$'", "kill -9 0"])(
  "a checker that is killed (%s) has found nothing",
  (kill) => {
    const { status, stdout, stderr } = crash(
      "--check",
      `[ -z "$(tr -d '\\0' < $TSBUSE_IMAGE)" ] || { ${kill}; exit $?; }`,
    );
    expect({ status, stdout }).toEqual({ status: 2, stdout: "" });
    expect(stderr).toMatch(
      /^tsbuse: the checker was killed, .*: if the system was out of memory, give fewer --jobs\n$/,
    );
  },
);
