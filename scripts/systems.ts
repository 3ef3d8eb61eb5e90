/**
 * bun run systems [NAME...]: runs the binaries that "bun run build --all" has made on each system, and prints what they
 * did. Those of a name that begins with "socket" serve NBD clients here, perhaps in an emulated processor: all of them
 * take a minute. The others are machines with both drivers, in which scripts/systems/table.sh is done.
 */
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { ensureInstalled } from "./lib/apt.ts";
import { ARM64_ROOT, arm64Machine } from "./lib/arm64.ts";
import { Failure } from "./lib/failure.ts";
import { ROOT } from "./lib/suites.ts";

const TABLE = join(ROOT, "scripts/systems/table.sh");
/** A machine in software emulation that others keep from its processors takes a minute for what it does in seconds. */
const LIMIT_SECONDS = 900;

/** Each system by its name: the command that does the table there and prints it; it may put files in a directory. */
const SYSTEMS: Readonly<Record<string, (directory: string) => Promise<readonly string[]>>> = {
  "socket-x64": async () => onSocket(binary("x64")),
  "socket-x64-musl": async () =>
    onSocket("env", `LD_LIBRARY_PATH=${await muslLibraries()}`, binary("x64-musl")),
  "socket-x64-baseline-Nehalem": () => emulated("x86_64", "-cpu", "Nehalem", binary("x64-baseline")),
  "socket-arm64": () => emulated("aarch64", "-L", ARM64_ROOT, binary("arm64")),
  "x64-6.1": async () => inVm("x64", "--kernel", "6.1"),
  "x64-6.12": async () => inVm("x64"),
  "x64-newest": async () => inVm("x64", "--kernel", "newest"),
  "x64-baseline-Nehalem": async () => inVm("x64-baseline", "--cpu", "Nehalem"),
  "x64-Nehalem": async () => inVm("x64", "--cpu", "Nehalem"),
  "x64-musl": async () => inVm("x64-musl", "--env", `LD_LIBRARY_PATH=${await muslLibraries()}`),
  arm64: (directory) => arm64Machine(4, binary("arm64"), directory),
  "arm64-16k": (directory) => arm64Machine(16, binary("arm64"), directory),
};

function binary(target: string): string {
  const path = join(ROOT, `dist/tsbuse-linux-${target}`);
  if (!existsSync(path)) throw new Failure(`${path} does not exist: run "bun run build --all"`, 2);
  return path;
}

function onSocket(...command: string[]): readonly string[] {
  return ["/bin/sh", join(ROOT, "scripts/systems/socket.sh"), ...command];
}

async function emulated(processor: string, ...command: string[]): Promise<readonly string[]> {
  const emulator = `qemu-${processor}-static`;
  await ensureInstalled([
    { command: emulator, package: "qemu-user-static" },
    { command: "nbdcopy", package: "libnbd-bin" },
    { file: join(ARM64_ROOT, "lib/libc.so.6"), package: "libc6-arm64-cross" },
  ]);
  return onSocket(emulator, ...command);
}

function inVm(target: string, ...options: string[]): readonly string[] {
  const vm = [join(ROOT, "scripts/vm"), "--timeout", String(LIMIT_SECONDS), ...options];
  return [...vm, "--", "/bin/busybox", "sh", TABLE, binary(target)];
}

/** A directory of what the binary for musl needs beside musl, which Debian's package puts where it belongs. */
async function muslLibraries(): Promise<string> {
  await ensureInstalled([{ command: "musl-gcc", package: "musl-tools" }]);
  const directory = join(ROOT, "dist/musl");
  mkdirSync(directory, { recursive: true });
  for (const name of ["libstdc++.so.6", "libgcc_s.so.1"]) {
    const place = Bun.spawnSync(["cc", `-print-file-name=${name}`])
      .stdout.toString()
      .trim();
    cpSync(place, join(directory, name), { dereference: true });
  }
  const loader = "ld-linux-x86-64.so.2";
  const options = [
    "-shared",
    "-fPIC",
    "-nostartfiles",
    `-Wl,-soname,${loader}`,
    "-o",
    join(directory, loader),
  ];
  const made = Bun.spawnSync(["musl-gcc", ...options, join(ROOT, "scripts/systems/glibc-for-musl.c")]);
  if (made.exitCode !== 0) throw new Failure(`musl-gcc failed: ${made.stderr.toString().trim()}`);
  return directory;
}

/** Returns whether all went well there. */
async function run(name: string): Promise<boolean> {
  const directory = mkdtempSync("/tmp/tsbuse-systems-");
  try {
    const command = await SYSTEMS[name]?.(directory);
    if (command === undefined)
      throw new Failure(`unknown system "${name}": choose from ${Object.keys(SYSTEMS).join(", ")}`, 2);
    const output = join(directory, "output");
    const child = Bun.spawn(["timeout", String(LIMIT_SECONDS + 60), ...command], {
      stdio: ["ignore", Bun.file(output), "inherit"],
    });
    await child.exited;
    const said = readFileSync(output, "utf8").replaceAll("\r", "");
    console.log(`--- ${name}`);
    for (const [line] of said.matchAll(/^(?:on Linux|by |ok |FAIL|all done).*$/gm)) console.log(line);
    return said.includes("\nall done\n");
  } finally {
    rmSync(directory, { recursive: true });
  }
}

const names = process.argv.slice(2);
try {
  const failed: string[] = [];
  for (const name of names.length > 0 ? names : Object.keys(SYSTEMS))
    if (!(await run(name))) failed.push(name);
  if (failed.length > 0) throw new Failure(`not all was done on ${failed.join(", ")}`);
} catch (error) {
  if (!(error instanceof Failure)) throw error;
  console.error(`systems: ${error.message}`);
  process.exit(error.exitStatus);
}
