/**
 * bun run systems [NAME...]: runs the binaries that "bun run build --all" has made on each system, and prints the
 * results. Systems named "socket..." serve NBD clients on this machine, some on an emulated processor: all of them
 * together take a minute. The others are virtual machines with both drivers, which run scripts/systems/table.sh.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { ensureInstalled } from "./lib/apt.ts";
import { ARCHITECTURES } from "./lib/architecture.ts";
import { bareMachine, bareRoot } from "./lib/bare-machine.ts";
import { Failure } from "./lib/failure.ts";
import { ensureKernel } from "./lib/kernel.ts";
import type { KernelSeries } from "./lib/kernel-package.ts";
import { muslSystem } from "./lib/musl.ts";
import { libraryRoot, rescueArchive } from "./lib/rescue-archive.ts";
import { ROOT } from "./lib/suites.ts";

const TABLE = join(ROOT, "scripts/systems/table.sh");
/** An emulated machine on a busy host takes minutes for what otherwise takes seconds. */
const LIMIT_SECONDS = 900;

const NEHALEM = ["-cpu", "Nehalem"] as const;

/** By the name of the system: the command that runs the checks there and prints them; it may use a directory. */
const SYSTEMS: Readonly<Record<string, (directory: string) => Promise<readonly string[]>>> = {
  "socket-x64": async () => onSocket(binary("x64")),
  "socket-x64-baseline-Nehalem": () => emulated("x86_64", [], ...NEHALEM, binary("x64-baseline")),
  "socket-arm64": async () =>
    emulated("aarch64", [], "-L", (await libraryRoot("arm64")) ?? "/", binary("arm64")),
  "socket-x64-musl": async () => onSocket("env", ...(await muslSystem("x64")).variables, binary("x64-musl")),
  "socket-x64-musl-baseline-Nehalem": async () =>
    emulated("x86_64", (await muslSystem("x64")).variables, ...NEHALEM, binary("x64-musl-baseline")),
  "socket-arm64-musl": async () => {
    const { variables, root } = await muslSystem("arm64");
    return emulated("aarch64", variables, "-L", root, binary("arm64-musl"));
  },
  "x64-6.1": async () => inVm("x64", "--kernel", "6.1"),
  "x64-6.12": async () => inVm("x64"),
  "x64-newest": async () => inVm("x64", "--kernel", "newest"),
  "x64-baseline-Nehalem": async () => inVm("x64-baseline", "--cpu", "Nehalem"),
  "x64-Nehalem": async () => inVm("x64", "--cpu", "Nehalem"),
  "x64-musl": async () =>
    inVm("x64-musl", ...(await muslSystem("x64")).variables.flatMap((each) => ["--env", each])),
  // The Cortex-A57 lacks pages of 16 KiB. The Cortex-A76 is that of the Raspberry Pi 5, whose own kernel uses them.
  arm64: (directory) => onArm64("6.12", "cortex-a57", directory),
  "arm64-16k": (directory) => onArm64("6.12-16k", "cortex-a76", directory),
};

function binary(target: string): string {
  const path = join(ROOT, `dist/tsbuse-linux-${target}`);
  if (!existsSync(path)) throw new Failure(`${path} does not exist: run "bun run build --all"`, 2);
  return path;
}

function onSocket(...command: string[]): readonly string[] {
  return ["/bin/sh", join(ROOT, "scripts/systems/socket.sh"), ...command];
}

async function emulated(
  processor: string,
  environment: readonly string[],
  ...command: string[]
): Promise<readonly string[]> {
  const emulator = `qemu-${processor}-static`;
  await ensureInstalled([
    { command: emulator, package: "qemu-user-static" },
    { command: "nbdcopy", package: "libnbd-bin" },
  ]);
  return onSocket("env", ...environment, emulator, ...command);
}

/** A machine that boots the rescue archive. */
async function onArm64(series: KernelSeries, model: string, directory: string): Promise<readonly string[]> {
  const tsbuse = binary("arm64");
  await ensureInstalled([ARCHITECTURES.arm64.qemu]);
  const kernel = await ensureKernel(series, "arm64");
  const { archive } = rescueArchive(tsbuse, 0, await libraryRoot("arm64"));
  const image = join(directory, "initramfs");
  await Bun.write(image, Buffer.concat([bareRoot(kernel, "table.sh"), archive]));
  return bareMachine({ kernel, image, memoryMib: 1024, model });
}

function inVm(target: string, ...options: string[]): readonly string[] {
  const vm = [join(ROOT, "scripts/vm"), "--timeout", String(LIMIT_SECONDS), ...options];
  return [...vm, "--", "/bin/busybox", "sh", TABLE, binary(target)];
}

/** Returns whether every check passed there. */
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
  if (failed.length > 0) throw new Failure(`failed on ${failed.join(", ")}: see above`);
} catch (error) {
  if (!(error instanceof Failure)) throw error;
  console.error(`systems: ${error.message}`);
  process.exit(error.exitStatus);
}
