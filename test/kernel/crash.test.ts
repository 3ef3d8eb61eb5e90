/**
 * Goal: the data that real programs on a real file system leave after a power failure is judged correctly. Correct
 * programs pass in every state, and a common mistake is found.
 */
import { expect, test } from "bun:test";
import { existsSync, rmSync } from "node:fs";
import { flushed, sectors, startRecord, wrote } from "../support/recording.ts";
import { BINARY, Server } from "../support/server.ts";
import { run, sh, until } from "../support/shell.ts";
import { describeTransports } from "../support/transports.ts";

/** For use in the mounted file system: marks the end of a step that must survive a power failure from here on. */
const MARK = `mark() { "${BINARY}" mark "$NODE" "$1"; }`;

/** Recovers the file system and reads one of its files: `file NAME`. */
const FILE = `e2fsck -p "$TSBUSE_IMAGE" >/dev/null; [ $? -le 1 ] || exit
file() { debugfs -R "cat $1" "$TSBUSE_IMAGE" 2>/dev/null; }`;

const ROWS = `e2fsck -p "$TSBUSE_IMAGE" >/dev/null; [ $? -le 1 ] || exit; cd "$TSBUSE_SCRATCH"
for end in "" -wal -journal; do echo "dump db$end db$end"; done | debugfs -f - "$TSBUSE_IMAGE" >/dev/null 2>&1
[ "$(sqlite3 db "pragma integrity_check")" = ok ] || { echo damaged; exit 1; }
[ "$(sqlite3 db "select count(*) from t")" -ge "$TSBUSE_MARK" ] || { echo rows are missing; exit 1; }`;

/** Rows large enough to span several pages each, and an index. */
const DATABASE = `sqlite3 db "create table t (a, b); create index i on t (b)"; sync; mark 0
for i in 1 2 3; do
  sqlite3 db "pragma journal_mode = wal; insert into t values ($i, hex(randomblob(3000)))" >/dev/null; mark $i
done; sync`;

const REPLACE = "echo old > f; sync; mark 0; head -c 65536 /dev/zero | tr '\\0' n > tmp";
/** The text must be old or new, and new once that was acknowledged. */
const OLD_OR_NEW = `${FILE}; text=$(file f | head -c 9); [ "$text" = nnnnnnnnn ] && exit
[ "$text" = old ] || { echo "neither old nor new"; exit 1; }; [ "$TSBUSE_MARK" = 0 ] || { echo "still old"; exit 1; }`;

const WORK = `mkdir d; for i in $(seq 12); do echo $i > d/$i; head -c $((i * 999)) /dev/urandom > d/long$i; done; mark 0
sync d/3; rm -r d; for i in $(seq 6); do mkdir e$i; ln d/$i e$i/x 2>/dev/null || echo $i > e$i/x; sync e$i/x; done; mark 1; rm -r e2 e4`;

/** A database with synchronous off: its insert is marked as done before it is durable. */
const UNSAFE = `sqlite3 db "create table t (a, b)"; sync; mark 0
sqlite3 db "pragma synchronous = off; insert into t values (1, hex(randomblob(3000)))"; mark 1`;

// A state takes a second in an emulated machine. Many of them are in test/conformance/crash.test.ts.
const CASES = [
  ["ext4", WORK, "ext4", 12, undefined],
  ["SQLite with a log", DATABASE, ROWS, 8, undefined],
  ["a replaced file", `${REPLACE}; sync tmp; mv tmp f; sync .; mark 1`, OLD_OR_NEW, 8, undefined],
  [
    "a file that is synchronized, and not its directory",
    `${REPLACE}; sync tmp; mv tmp f; mark 1`,
    OLD_OR_NEW,
    60,
    /still old/,
  ],
  [
    "a file that is replaced without fsync",
    `${REPLACE}; mv tmp f; mark 1`,
    OLD_OR_NEW,
    60,
    /still old|neither/,
  ],
  ["SQLite with synchronous = OFF", UNSAFE, ROWS, 60, /rows are missing|damaged/],
] as const;

/** For a disk without a file system: node and image are equal, and nothing is left of the previous state. */
const SAME = `cmp "$TSBUSE_IMAGE" "$TSBUSE_DEVICE" || exit
[ "$(stat -c %s "$TSBUSE_IMAGE")" = "$(blockdev --getsize64 "$TSBUSE_DEVICE")" ] || exit
mkfs.ext4 -q "$TSBUSE_DEVICE" 4M && mount "$TSBUSE_DEVICE" /mnt && echo harm > /mnt/harm || exit
setsid sh -c 'sleep 1000 < "$TSBUSE_DEVICE"' & cmp -s "$TSBUSE_IMAGE" "$TSBUSE_DEVICE" && exit 1; exit 0`;

const RECORD = "/mnt/small.record";
const SIZE = 2 ** 23;

/** Two writes, each of which may be missing: four states. */
function makeRecord(): void {
  rmSync(RECORD, { force: true });
  const writer = startRecord(RECORD, SIZE);
  for (const block of [0, 1000]) wrote(writer, block * 4096, sectors(0, 8, 1));
  flushed(writer);
  writer.close();
}

async function nodes(): Promise<string> {
  return (await run([BINARY, "list"])).stdout;
}

function describeNodes(driver: string): void {
  const words = ["crash", RECORD, "--sector", "4096", "--seed", "1", "--device", driver];
  test("a state is a node as well, one after the other on the same ones, and none is left", async () => {
    makeRecord();
    const before = await nodes();
    const { status, stdout, stderr } = await run([BINARY, ...words, "--jobs", "2", "--check", SAME]);
    expect(stdout + stderr).toMatch(/^no fault found: 4 states, and there are no others/);
    expect(status).toBe(0);
    expect(await nodes()).toBe(before);
  });

  test("what a run that is killed leaves of its node, the next one takes away", async () => {
    makeRecord();
    const before = await nodes();
    const check = 'touch /run/at; mount "$TSBUSE_DEVICE" /mnt; exec sleep 1000 < "$TSBUSE_DEVICE"';
    const child = Bun.spawn([BINARY, ...words, "--jobs", "1", "--check", check], {
      stdio: ["ignore", "ignore", "ignore"],
    });
    await until("a checker is at work", () => Promise.resolve(existsSync("/run/at")));
    child.kill("SIGKILL");
    await child.exited;
    rmSync("/run/at");
    expect((await run([BINARY, ...words, "--jobs", "1", "--check", SAME])).status).toBe(0);
    await until("nothing is left", async () => (await nodes()) === before);
    expect((await run(["pgrep", "-fx", "sleep 1000"])).stdout).toBe("");
  });
}

describeTransports((transport, disk) => {
  // The command has no option for the way to attach a node.
  if (transport.name !== "nbd by ioctl") describeNodes(transport.any);

  // The contents of a record do not depend on the driver: one is enough.
  const cases = transport.name === "ublk" ? CASES : CASES.slice(0, 1);

  test.each(cases)("%s", async (...[, program, check, states, says]) => {
    const server = await Server.start(
      "loop",
      "/mnt/disk.img",
      disk.path,
      "--create",
      "64M",
      "--layer",
      "record:file=/mnt/record",
    );
    await sh(`mkfs.ext4 -q ${disk.path}; mkdir /mnt/at; mount ${disk.path} /mnt/at`);
    await sh(`NODE=${disk.path}; ${MARK}; cd /mnt/at; ${program}`);
    await sh("umount /mnt/at");
    expect(await server.stop()).toBe(0);
    const wanted = ["--after", "0", "--check", check, "--seed", "1", "--states", String(states)];
    const { status, stdout, stderr } = await run([BINARY, "crash", "/mnt/record", ...wanted]);
    if (says === undefined) {
      expect(stdout + stderr).toMatch(/^no fault found: \d+ states/);
      expect(status).toBe(0);
    } else {
      expect(stderr).toContain("a power failure can do harm");
      expect(stdout).toMatch(says);
      expect(stdout).toContain("image: /mnt/record.fault");
      expect(status).toBe(1);
    }
  });
});
