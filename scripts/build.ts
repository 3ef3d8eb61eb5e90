/**
 * Builds the executable. `bun run build` makes dist/tsbuse for this machine and its manual page; `--all` makes the
 * binaries of a release, with their checksums.
 */
import { mkdirSync, readFileSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { WORKER_MODULES } from "../src/serving/workers.ts";

const ROOT = join(import.meta.dir, "..");
const DIST = join(ROOT, "dist");

/** The binaries of a release: bun's name for the system of each, by the suffix of the binary. */
const RELEASE = {
  "linux-x64": "bun-linux-x64",
  "linux-x64-baseline": "bun-linux-x64-baseline",
  "linux-arm64": "bun-linux-arm64",
  "linux-x64-musl": "bun-linux-x64-musl",
  "linux-x64-musl-baseline": "bun-linux-x64-musl-baseline",
  "linux-arm64-musl": "bun-linux-arm64-musl",
} as const;

const COMMIT = await commit();

/** Identifies the sources. Nothing else that differs between two builds may get into a binary. */
async function commit(): Promise<string> {
  const [top, head, changed] = await Promise.all([
    git("rev-parse", "--show-toplevel"),
    git("rev-parse", "HEAD"),
    git("status", "--porcelain", "--untracked-files=no"),
  ]);
  // The sources may be unpacked inside another project's checkout.
  if (top === undefined || head === undefined || realpathSync(top) !== realpathSync(ROOT)) return "unknown";
  return changed === "" ? head : `${head}-modified`;
}

/** The output of git in this checkout; undefined if git fails or is missing. */
async function git(...words: string[]): Promise<string | undefined> {
  if (Bun.which("git") === null) return undefined;
  const child = Bun.spawn(["git", ...words], { cwd: ROOT, stdout: "pipe", stderr: "ignore" });
  const [status, text] = await Promise.all([child.exited, child.stdout.text()]);
  return status === 0 ? text.trim() : undefined;
}

/**
 * The program runs as root, so at its start it must not read anything from the working directory, which may be
 * anybody's. The workers are entry points of their own; with src/main.ts at the root they keep the paths in
 * src/serving/workers.ts.
 */
async function compile(output: string, suffix: string, target: string | undefined): Promise<void> {
  const command = [
    process.execPath,
    "build",
    "--compile",
    "--no-compile-autoload-dotenv",
    "--no-compile-autoload-bunfig",
    // Saves the time to parse at the start.
    "--bytecode",
    "--format=esm",
    `--define=TSBUSE_BUILD=${JSON.stringify({ commit: COMMIT, target: suffix })}`,
    ...(target === undefined ? [] : [`--target=${target}`]),
    `--outfile=${output}`,
    "src/main.ts",
    ...WORKER_MODULES.map((module) => join("src", module)),
  ];
  const build = Bun.spawn(command, { cwd: ROOT, stdout: "pipe", stderr: "pipe" });
  const [status, text] = await Promise.all([build.exited, build.stderr.text()]);
  if (status !== 0) throw new Error(`bun build of ${output} failed: ${text.trim()}`);
}

async function buildRelease(): Promise<void> {
  const sums: string[] = [];
  for (const [suffix, target] of Object.entries(RELEASE)) {
    const name = `tsbuse-${suffix}`;
    await compile(join(DIST, name), suffix, target);
    const digest = new Bun.CryptoHasher("sha256")
      .update(await Bun.file(join(DIST, name)).arrayBuffer())
      .digest("hex");
    sums.push(`${digest}  ${name}\n`);
    console.log(`dist/${name}`);
  }
  await Bun.write(join(DIST, "SHA256SUMS"), sums.join(""));
  console.log("dist/SHA256SUMS");
}

async function buildHere(): Promise<void> {
  const musl = readFileSync("/proc/self/maps", "utf8").includes("ld-musl-") ? "-musl" : "";
  await compile(join(DIST, "tsbuse"), `linux-${process.arch}${musl}`, undefined);
  console.log("dist/tsbuse");
  const page = Bun.spawn([join(DIST, "tsbuse"), "man"], { stdout: Bun.file(join(DIST, "tsbuse.1")) });
  if ((await page.exited) !== 0) throw new Error("making the manual page failed: see above");
  console.log("dist/tsbuse.1");
}

const unknown = process.argv.slice(2).find((word) => word !== "--all");
if (unknown !== undefined) {
  console.error(`build: unknown argument ${unknown}: give --all or nothing`);
  process.exit(2);
}
mkdirSync(DIST, { recursive: true });
await (process.argv.includes("--all") ? buildRelease() : buildHere());
