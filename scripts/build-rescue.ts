/**
 * Builds dist/tsbuse, packs it in dist/tsbuse-rescue.cpio and, compressed, in a .zst beside that, and prints how much
 * they add to a rescue system. "--all" builds the binaries of a release and an archive of each. The same binary and C
 * library give the same bytes: the times in the archive are SOURCE_DATE_EPOCH, or 0.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { Failure } from "./lib/failure.ts";
import { compressed, libraryRoot, RESCUE_TARGETS, rescueArchive } from "./lib/rescue-archive.ts";
import { ROOT } from "./lib/suites.ts";

const DIST = join(ROOT, "dist");
const BINARY = join(DIST, "tsbuse");

/** The kernel keeps a file in whole pages. */
const PAGE = 4096;

function modificationTime(): number {
  const text = process.env["SOURCE_DATE_EPOCH"] ?? "0";
  if (/^\d{1,9}$/.test(text) || /^[1-3]\d{9}$/.test(text)) return Number(text);
  throw new Failure(`SOURCE_DATE_EPOCH is "${text}": give seconds since 1970`, 2);
}

/** Memory of a server of a RAM disk of 64 MiB, in bytes; `name` is a field of proc_pid_status(5). */
async function residentMemory(options: readonly string[]): Promise<(name: string) => number> {
  const directory = mkdtempSync("/tmp/tsbuse-rescue-");
  const target = `unix:${join(directory, "sock")}`;
  const server = Bun.spawn([BINARY, "ramdisk", "64M", target, ...options], {
    stdout: "pipe",
    stderr: "inherit",
  });
  try {
    // It prints its line once it serves.
    const { done } = await server.stdout.getReader().read();
    if (done) throw new Failure(`${BINARY} does not serve a RAM disk: see above`);
    const status = readFileSync(`/proc/${server.pid}/status`, "utf8");
    return (name) => Number(new RegExp(`^${name}:\\s*(\\d+) kB$`, "m").exec(status)?.[1]) * 1024;
  } finally {
    server.kill();
    await server.exited;
    rmSync(directory, { recursive: true });
  }
}

function line(what: string, bytes: number): void {
  console.log(`${what.padEnd(58)} ${(bytes / 2 ** 20).toFixed(1).padStart(6)} MiB`);
}

async function build(...words: string[]): Promise<void> {
  const child = Bun.spawn([process.execPath, join(ROOT, "scripts/build.ts"), ...words], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  if ((await child.exited) !== 0) throw new Failure("the build failed: see above");
}

/** Writes the archive of a binary to `name` in dist/, and prints its size. */
async function pack(binary: string, name: string, root?: string): Promise<void> {
  const { archive, files } = rescueArchive(binary, modificationTime(), root);
  const small = await compressed(archive);
  await Bun.write(join(DIST, name), archive);
  await Bun.write(join(DIST, `${name}.zst`), small);
  line(name, archive.length);
  line(`${name}.zst`, small.length);
  line(
    "memory after unpacking",
    files.reduce((total, length) => total + Math.ceil(length / PAGE) * PAGE, 0),
  );
}

async function packRelease(): Promise<void> {
  await build("--all");
  for (const { target, architecture } of RESCUE_TARGETS)
    await pack(
      join(DIST, `tsbuse-${target}`),
      `tsbuse-rescue-${target}.cpio`,
      await libraryRoot(architecture),
    );
}

async function packHere(): Promise<void> {
  await build();
  await pack(BINARY, "tsbuse-rescue.cpio");
  const empty = await residentMemory([]);
  const full = await residentMemory(["--populate"]);
  line("resident, serving an empty RAM disk of 64 MiB", empty("VmRSS"));
  line("of that not pages of the unpacked files", empty("RssAnon"));
  line("resident, serving a full one", full("VmRSS"));
}

try {
  const words = process.argv.slice(2);
  const unknown = words.find((word) => word !== "--all");
  if (unknown !== undefined) throw new Failure(`unknown argument ${unknown}: give --all or nothing`, 2);
  await (words.length > 0 ? packRelease() : packHere());
} catch (error) {
  if (!(error instanceof Failure)) throw error;
  console.error(`build:rescue: ${error.message}`);
  process.exit(error.exitStatus);
}
