/**
 * bun scripts/rescue-memory.ts [TARGET...]: the smallest memory in which a machine boots each rescue archive that "bun
 * run build:rescue --all" makes, and serves a RAM disk with a file system on it (scripts/systems/serve.sh). Each boot
 * takes half a minute in software emulation.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { ensureInstalled } from "./lib/apt.ts";
import { ARCHITECTURES } from "./lib/architecture.ts";
import { bareMachine, bareRoot } from "./lib/bare-machine.ts";
import { Failure } from "./lib/failure.ts";
import { lastLines } from "./lib/guest-output.ts";
import { ensureKernel, type Kernel } from "./lib/kernel.ts";
import { RESCUE_TARGETS } from "./lib/rescue-archive.ts";
import { ROOT } from "./lib/suites.ts";

/** The kernel gives a tmpfs half of the memory, and the first root is one unless it is told otherwise. */
const PARAMETERS = ["", "rootfstype=ramfs"] as const;
const STEP_MIB = 8;
const LARGEST_MIB = 512;
/** A boot that takes longer hangs: ten times what it takes. */
const BOOT_SECONDS_MAX = 300;

const TARGETS = RESCUE_TARGETS.map(({ target }) => target);

interface Plan {
  readonly kernel: Kernel;
  readonly image: string;
  readonly parameters: string;
}

/** Boots it with that much memory, and returns what its console says. */
async function boot(plan: Plan, memoryMib: number): Promise<string> {
  const command = bareMachine({ ...plan, memoryMib });
  const child = Bun.spawn(["timeout", String(BOOT_SECONDS_MAX), ...command], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [said] = await Promise.all([child.stdout.text(), child.exited]);
  return said.replaceAll("\r", "");
}

function served(said: string): boolean {
  return /^all done$/m.test(said);
}

/**
 * The smallest memory, in MiB, between one that fails and one that works, by halves. Less is tried a second time, since
 * an emulated boot fails now and then.
 */
async function smallest(plan: Plan, failing: number, working: number): Promise<number> {
  let [fails, works] = [failing, working];
  while (works - fails > STEP_MIB) {
    const middle = fails + Math.ceil((works - fails) / STEP_MIB / 2) * STEP_MIB;
    if (served(await boot(plan, middle))) works = middle;
    else fails = middle;
  }
  while (served(await boot(plan, works - STEP_MIB))) works -= STEP_MIB;
  return works;
}

async function measure(name: string, directory: string): Promise<void> {
  const known = RESCUE_TARGETS.find(({ target }) => target === name);
  if (known === undefined)
    throw new Failure(`unknown target "${name}": choose from ${TARGETS.join(", ")}`, 2);
  const { target, architecture } = known;
  const file = `tsbuse-rescue-${target}.cpio.zst`;
  const archive = join(ROOT, "dist", file);
  if (!existsSync(archive))
    throw new Failure(`${archive} does not exist: run "bun run build:rescue --all"`, 2);
  await ensureInstalled([ARCHITECTURES[architecture].qemu]);
  const kernel = await ensureKernel("6.12", architecture);
  const image = join(directory, target);
  await Bun.write(image, Buffer.concat([bareRoot(kernel, "serve.sh"), readFileSync(archive)]));
  // What it holds has to fit.
  const fails = Math.floor(Bun.file(archive.replace(/\.zst$/, "")).size / 2 ** 20 / STEP_MIB) * STEP_MIB;
  let works = LARGEST_MIB;
  const said = await boot({ kernel, image, parameters: "" }, works);
  if (!served(said))
    throw new Failure(`${file} does not serve in ${works} MiB:\n${lastLines(said, 40).join("\n")}`);
  for (const parameters of PARAMETERS) {
    works = await smallest({ kernel, image, parameters }, fails, works);
    const what = [file, ...(parameters === "" ? [] : [parameters])].join(", ");
    console.log(`${what.padEnd(62)} ${String(works).padStart(4)} MiB`);
  }
}

const directory = mkdtempSync("/tmp/tsbuse-rescue-");
try {
  const names = process.argv.slice(2);
  for (const name of names.length > 0 ? names : TARGETS) await measure(name, directory);
} catch (error) {
  if (!(error instanceof Failure)) throw error;
  console.error(`rescue-memory: ${error.message}`);
  process.exitCode = error.exitStatus;
} finally {
  rmSync(directory, { recursive: true });
}
