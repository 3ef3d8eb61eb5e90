/**
 * Goal: the built-in checkers of `tsbuse crash` find faults in a file system, and no fault in an intact one, in as many
 * states as a run has. The file system is made without a kernel, and changed behind its back.
 */
import { Database } from "bun:sqlite";
import { afterAll, beforeAll, expect, test } from "bun:test";
import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { CAP_SYS_ADMIN, hasCapability } from "../support/privileges.ts";
import { flushed, sectors, startRecord, wrote } from "../support/recording.ts";
import { run, sh, until } from "../support/shell.ts";
import { TemporaryDirectory } from "../support/temporary.ts";
import { commandOf } from "../unit/cli/tsbuse.ts";

const BLOCK = 4096;
const BLOCKS = 4096;
const PATHS = "export PATH=$PATH:/usr/sbin";
const CAN_MOUNT = hasCapability(CAP_SYS_ADMIN) && existsSync("/dev/loop-control");
const NOBODY = 65_534;
const directory = new TemporaryDirectory();
/** There once a checker has filled the disk. */
const TOLD = directory.join("told");
const [base, record] = [directory.join("base"), directory.join("record")];

beforeAll(async () => {
  const root = directory.join("root");
  mkdirSync(root);
  using database = new Database(`${root}/db`);
  database.run("create table t (a, b)");
  for (let row = 0; row < 20; row += 1) database.run("insert into t values (?, hex(randomblob(500)))", [row]);
  mkdirSync(`${root}/data`, { mode: 0o700 });
  if (CAN_MOUNT) chownSync(`${root}/data`, NOBODY, NOBODY);
  await sh(`${PATHS}; mke2fs -q -t ext4 -b ${BLOCK} -d ${root} ${base} ${BLOCKS}`);
});
afterAll(() => directory[Symbol.dispose]());

/** Where debugfs finds them: the first block of all that are there. */
const PLACES = {
  "16 free blocks": ["ffb 16", /: (\d+)/, 16],
  "the inode of a file": ["imap /db", /block (\d+)/, 1],
  "the third block of the database": ["bmap /db 2", /(\d+)/, 1],
} as const;

test.each([
  ["ext4", "16 free blocks", 1000, /^no fault found: 1000 states/, "", 0],
  ["ext4", "the inode of a file", 1000, /^with no more than 1 of /, "a power failure can do harm", 1],
  ["sqlite:/db", "16 free blocks", 50, /^no fault found: 50 states/, "", 0],
  ["sqlite:/db", "the third block of the database", 50, /^with no more than 1 of /, "/db", 1],
  ["sqlite:/none", "16 free blocks", 50, /^$/, "the database /none is not there", 2],
] as const)(
  "%s, when %s are overwritten, in %d states",
  async (check, place, states, says, complaint, ends) => {
    const [request, pattern, count] = PLACES[place];
    const found = await sh(`${PATHS}; debugfs -R '${request}' ${base} 2>/dev/null`);
    const first = Number(pattern.exec(found)?.[1]);
    rmSync(record, { force: true });
    const writer = startRecord(record, BLOCK * BLOCKS);
    for (let block = first; block < first + count; block += 1) wrote(writer, block * BLOCK, sectors(0, 8, 1));
    writer.close();
    const words = ["--base", base, "--check", check, "--states", String(states), "--seed", "1"];
    const { status, stdout, stderr } = await run(commandOf("crash", record, ...words));
    expect(stdout).toMatch(says);
    expect(stderr).toContain(complaint);
    expect(status).toBe(ends);
  },
  120_000,
);

/** How many seconds the server lasts: nothing else waits as long. */
const SECONDS = 1_000_000 + process.pid;
const servers = async (): Promise<string> => (await run(["pgrep", "-fx", `sleep ${SECONDS}`])).stdout;

/** What stands for programs that not every machine has. */
const PROGRAMS = {
  su: `exec setpriv --reuid ${NOBODY} --regid ${NOBODY} --clear-groups /bin/sh -c "$3"`,
  pg_ctl: `touch "$4/used" || exit; case "$*" in *start) setsid sleep ${SECONDS} & esac`,
  pg_amcheck: `exec sleep ${SECONDS}`,
} as const;

test.skipIf(!CAN_MOUNT)(
  "a server is reached by its user, and ends with its checker (needs root)",
  async () => {
    const bin = directory.join("bin");
    mkdirSync(bin);
    for (const [name, script] of Object.entries(PROGRAMS))
      writeFileSync(`${bin}/${name}`, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    chmodSync(directory.path, 0o755);
    rmSync(record, { force: true });
    flushed(startRecord(record, BLOCK * BLOCKS));
    const words = commandOf("crash", record, "--base", base, "--check", "postgres:data", "--timeout", "3");
    const { stderr } = await run(["env", `PATH=${bin}:${process.env["PATH"]}`, ...words]);
    expect(stderr).toContain("the checker was not done after 3 s");
    await until("the server has ended", async () => (await servers()) === "");
  },
  60_000,
);

test.skipIf(!CAN_MOUNT).each([
  ["the images do not fit", "true", 6],
  ["a checker fills it", `touch ${TOLD}; head -c 9M /dev/zero > $TSBUSE_SCRATCH/big`, 9],
  [
    "a checker fills it and says nothing",
    `touch ${TOLD}; head -c 9M /dev/zero > $TSBUSE_SCRATCH/big; exit 3`,
    9,
  ],
] as const)(
  "a disk of states is full: %s (needs root)",
  async (_, command, blocks) => {
    rmSync(record, { force: true });
    const writer = startRecord(record, BLOCK * BLOCKS);
    for (let block = 0; block < blocks; block += 1) {
      wrote(writer, block * 64 * BLOCK, sectors(0, 64 * 8, 1));
      flushed(writer);
    }
    writer.close();
    const [small, log, state] = [
      directory.join("small"),
      directory.join("log"),
      directory.join("full.state"),
    ];
    mkdirSync(small, { recursive: true });
    for (const path of [log, state, TOLD]) rmSync(path, { force: true });
    // Nothing is wrong with the untouched disk, nor with the first two.
    const check = `echo x >> ${log}; [ $(wc -l < ${log}) -le 3 ] || { ${command}; }`;
    const words = commandOf(
      "crash",
      record,
      "--check",
      check,
      "--jobs",
      "1",
      "--seed",
      "1",
      "--continue",
      state,
    );
    const mount = `mount -t tmpfs -o size=${command === "true" ? "1M" : "8M"} none ${small} && TMPDIR=${small} exec "$@"`;
    const ended = await run(["unshare", "--mount", "sh", "-c", mount, "sh", ...words]);
    expect(ended.stdout).toBe("");
    expect(ended.stderr).toMatch(
      /^tsbuse: no room for an image at .*: set TMPDIR elsewhere, or give fewer --jobs\n$/,
    );
    expect(ended.status).toBe(2);
    // Those that were tried, without the untouched disk, and without the one whose checker had no room.
    const tried = readFileSync(log, "utf8").length / 2 - 1 - (existsSync(TOLD) ? 1 : 0);
    expect(JSON.parse(readFileSync(state, "utf8"))).toMatchObject({ done: tried });
  },
  60_000,
);

test.skipIf(!CAN_MOUNT)(
  "what a checker leaves mounted is not removed with its directory (needs root)",
  async () => {
    rmSync(record, { force: true });
    flushed(startRecord(record, BLOCK * BLOCKS));
    const kept = directory.join("kept");
    mkdirSync(kept);
    writeFileSync(`${kept}/file`, "data");
    const check = `mkdir "$TSBUSE_SCRATCH/a b"; mount --bind ${kept} "$TSBUSE_SCRATCH/a b"`;
    const words = commandOf("crash", record, "--check", check, "--jobs", "1");
    const ended = await run(["unshare", "--mount", ...words]);
    expect(ended.stdout).toMatch(/^no fault found: 1 states/);
    const twice = commandOf(
      "crash",
      record,
      "--check",
      `[ -e ${kept}/once ] || { touch ${kept}/once; ${check}; exit 0; }`,
    );
    const { stdout, stderr, status } = await run(["unshare", "--mount", ...twice, "--jobs", "1"]);
    expect(readFileSync(`${kept}/file`, "utf8")).toBe("data");
    expect({ stdout, stderr, status }).toMatchObject({ status: 0 });
  },
);
