/**
 * Prints the screen of "tsbuse top" that docs/operations.md shows: two devices on Unix sockets, each under a load from
 * fio. Needs neither root nor drivers.
 *
 *     bun run build && bun scripts/top-screen.ts
 */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ensureInstalled } from "./lib/apt.ts";
import { Failure } from "./lib/failure.ts";
import { ROOT } from "./lib/suites.ts";

const TSBUSE = join(ROOT, "dist/tsbuse");
const SECONDS = 6;
const START_LIMIT_MS = 10_000;
const FIO = ["--bs=4k", "--time_based", `--runtime=${SECONDS + 4}`, "--minimal"];

const directory = mkdtempSync(join(tmpdir(), "s-"));
const started: Bun.Subprocess[] = [];

/** Starts a command that ends with this one. */
function start(...words: readonly string[]): void {
  started.push(Bun.spawn([...words], { stdio: ["ignore", "ignore", "inherit"], cwd: directory }));
}

async function serve(name: string, load: readonly string[], ...words: readonly string[]): Promise<void> {
  const socket = join(directory, `${name}.sock`);
  start(TSBUSE, ...words.map((word) => (word === "TARGET" ? `unix:${socket}` : word)));
  const deadline = performance.now() + START_LIMIT_MS;
  while (
    !(await Bun.file(socket)
      .stat()
      .then(
        () => true,
        () => false,
      ))
  ) {
    if (performance.now() > deadline) throw new Failure(`${words.join(" ")} does not serve`);
    await Bun.sleep(20);
  }
  start("fio", `--name=${name}`, "--ioengine=nbd", `--uri=nbd+unix:///?socket=${socket}`, ...FIO, ...load);
}

try {
  await ensureInstalled([{ command: "fio", package: "fio" }]);
  const slow = ["--layer", "delay:flush=4"];
  const image = join(directory, "disk.img");
  writeFileSync(image, "");
  truncateSync(image, 2 ** 28);
  await serve(
    "disk",
    ["--rw=randrw", "--fsync=32", "--iodepth=16", "--size=64M"],
    "loop",
    "disk.img",
    "TARGET",
    ...slow,
  );
  await serve(
    "cache",
    ["--rw=randread", "--iodepth=8", "--size=1G"],
    "ramdisk",
    "1G",
    "TARGET",
    "--read-only",
  );
  const words = ["top", "--count", String(SECONDS)];
  const environment = { ...process.env, LC_ALL: "C.UTF-8" };
  const top = Bun.spawn([TSBUSE, ...words], { stdio: ["ignore", "pipe", "inherit"], env: environment });
  const [headline = "", ...devices] = (
    (await top.stdout.text()).split(/^(?=tsbuse top)/m).at(-1) ?? ""
  ).split("\n\n");
  // Other devices may be in use on this machine.
  const own = devices.filter((device) => device.includes(directory));
  const frame = [headline.replace(/\d+ devices/, `${own.length} devices`), ...own].join("\n\n");
  console.log(frame.replaceAll(directory, "/run").replaceAll(/ +$/gm, "").trim());
} finally {
  for (const child of started) child.kill();
  await Promise.all(started.map((child) => child.exited));
  rmSync(directory, { recursive: true });
}
