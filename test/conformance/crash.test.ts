/**
 * Goal: the ready-made checkers of `tsbuse crash` find what is wrong in a file system, and nothing where all is right,
 * in as many states as a run has. The file system is made without a kernel, and written to behind its back.
 */
import { Database } from "bun:sqlite";
import { afterAll, beforeAll, expect, test } from "bun:test";
import { chmodSync, chownSync, existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
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
  ["ext4", "16 free blocks", 1000, /^no fault found: 1000 states/, ""],
  ["ext4", "the inode of a file", 1000, /^with no more than 1 of /, "a power failure can do harm"],
  ["sqlite:/db", "16 free blocks", 50, /^no fault found: 50 states/, ""],
  ["sqlite:/db", "the third block of the database", 50, /^with no more than 1 of /, "/db"],
  ["sqlite:/none", "16 free blocks", 50, /^$/, "the database /none is not there"],
] as const)(
  "%s, when %s are overwritten, in %d states",
  async (check, place, states, says, complaint) => {
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
    expect(status).toBe(complaint === "" ? 0 : 1);
  },
  120_000,
);

/** For so many seconds the server lasts: nobody else waits as long. */
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
