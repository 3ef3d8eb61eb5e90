#!/usr/bin/env bun
/**
 * Checks states of a real ext4 file system after a power failure, any number of them, and prints how many it checks in
 * a second. It makes the record in the virtual machine, with the kernel's own driver, and checks it on this machine.
 * Needs dist/tsbuse and e2fsck.
 */
import { existsSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";

const ROOT = join(import.meta.dir, "..");
const BINARY = join(ROOT, "dist/tsbuse");
const RECORD = join(ROOT, "dist/crash/ext4.record");

const USAGE = `usage: bun run crash [--states N] [--minutes N] [--seed N] [--anew]

  --states N    check N states (default 100000)
  --minutes N   end after N minutes at the latest
  --seed N      repeat the run that printed this seed
  --anew        make another record first`;

/** Makes, synchronizes, moves and removes files and directories. */
const PROGRAM = `set -e; cd /mnt; node=/dev/ublkb0
"$1" loop disk.img $node --create 64M --layer record:file="$2" --run '
  mkfs.ext4 -q $TSBUSE_DEVICE; mkdir at; mount $TSBUSE_DEVICE at; "$0" mark $TSBUSE_DEVICE mounted; cd at
  for i in $(seq 20); do
    mkdir d$i; echo $i > d$i/short; head -c $((i * 3000)) /dev/urandom > d$i/long; ln d$i/short link$i
    [ $((i % 3)) -ne 0 ] || sync d$i/long; [ $((i % 4)) -ne 0 ] || mv d$i e$i
    [ $((i % 5)) -ne 0 ] || rm -rf d$((i - 2))
  done
  cd ..; umount at'`;

const { values } = parseArgs({
  options: {
    states: { type: "string", default: "100000" },
    minutes: { type: "string" },
    seed: { type: "string" },
    anew: { type: "boolean" },
    help: { type: "boolean", short: "h" },
  },
});
if (values.help === true) {
  console.log(USAGE);
  process.exit(0);
}
if (values.anew === true) rmSync(RECORD, { force: true });
if (!existsSync(RECORD)) makeRecord();
const more = (["minutes", "seed"] as const).flatMap((name) => {
  const value = values[name];
  return value === undefined ? [] : [`--${name}`, value];
});
const words = [
  "--after",
  "mounted",
  "--sector",
  "4096",
  "--check",
  "ext4",
  "--states",
  values.states,
  ...more,
];
const result = Bun.spawnSync([BINARY, "crash", RECORD, ...words], {
  stdio: ["ignore", "pipe", "inherit"],
});
process.stdout.write(result.stdout);
// Includes the checkers. On a busy machine it says more than elapsed time.
const tried = Number(/ (\d+) states/.exec(result.stdout.toString())?.[1] ?? 0);
const seconds = Number(result.resourceUsage.cpuTime.total) / 1e6;
if (tried > 0)
  console.log(
    `${(tried / seconds).toFixed(0)} states in a second of one processor's time, ${seconds.toFixed(1)} s`,
  );
process.exit(result.exitCode);

function makeRecord(): void {
  mkdirSync(join(ROOT, "dist/crash"), { recursive: true });
  const inside = ["sh", "-c", PROGRAM.replaceAll('"$0" mark', `"${BINARY}" mark`), "sh", BINARY, RECORD];
  const { exitCode } = Bun.spawnSync([join(ROOT, "scripts/vm"), "--timeout", "120", "--", ...inside], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  if (exitCode === 0) return;
  rmSync(RECORD, { force: true });
  console.error("crash: recording in the virtual machine failed: see above");
  process.exit(1);
}
