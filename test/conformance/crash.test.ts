/**
 * Goal: the ready-made checkers of `tsbuse crash` find what is wrong in a file system, and nothing where all is right,
 * in as many states as a run has. The file system is made without a kernel, and written to behind its back.
 */
import { Database } from "bun:sqlite";
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdirSync, rmSync } from "node:fs";
import { sectors, startRecord, wrote } from "../support/recording.ts";
import { run, sh } from "../support/shell.ts";
import { TemporaryDirectory } from "../support/temporary.ts";
import { commandOf } from "../unit/cli/tsbuse.ts";

const BLOCK = 4096;
const BLOCKS = 4096;
const PATHS = "export PATH=$PATH:/usr/sbin";
const directory = new TemporaryDirectory();
const [base, record] = [directory.join("base"), directory.join("record")];

beforeAll(async () => {
  const root = directory.join("root");
  mkdirSync(root);
  using database = new Database(`${root}/db`);
  database.run("create table t (a, b)");
  for (let row = 0; row < 20; row += 1) database.run("insert into t values (?, hex(randomblob(500)))", [row]);
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
