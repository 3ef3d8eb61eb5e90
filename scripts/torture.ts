/** Soaks dist/tsbuse in the virtual machine: `bun run torture --help`. */
import { join } from "node:path";
import { Failure } from "./lib/failure.ts";
import { parseOptions, repeatLine, type TortureOptions, USAGE } from "./torture/options.ts";
import { describeStep, stepsFrom } from "./torture/plan.ts";

const ROOT = join(import.meta.dir, "..");
const GUEST = "scripts/torture/guest.ts";
/** The limit for a step, and the extra time for the last step and the boot. */
const STEP_SECONDS = 240;
const EXTRA_SECONDS = 600;
const DEFAULT_PLAN_STEPS = 100;

/** Returns the exit status. */
async function main(words: readonly string[]): Promise<number> {
  const task = parseOptions(words);
  if (task.kind === "help") {
    process.stdout.write(USAGE);
    return 0;
  }
  const { options } = task;
  if (task.kind === "plan") {
    printPlan(options);
    return 0;
  }
  console.log(`seed ${options.seed}`);
  const build = Bun.spawnSync([process.execPath, "run", "build"], {
    cwd: ROOT,
    stdio: ["ignore", "ignore", "inherit"],
  });
  if (build.exitCode !== 0) throw new Failure("the build failed: see above");
  const status = await runGuest(words, options);
  // The machine itself died, so the guest could not print how to repeat it.
  if (status > 1)
    console.log(`exit status ${status}: ${repeatLine(options, options.first, options.steps ?? 1000)}`);
  return status;
}

function runGuest(words: readonly string[], options: TortureOptions): Promise<number> {
  const { steps, minutes, seed } = options;
  const seconds = EXTRA_SECONDS + (minutes === undefined ? (steps ?? 1) * STEP_SECONDS : minutes * 60);
  const machine = [join(ROOT, "scripts/vm"), "--timeout", String(seconds), "--cwd", ROOT, "--"];
  // Of two --seed options the last one counts.
  const command = [process.execPath, GUEST, ...words, "--seed", String(seed)];
  const run = Bun.spawn([...machine, ...command], { stdio: ["ignore", "inherit", "inherit"] });
  // Ends the machine with us.
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => run.kill(signal));
  return run.exited;
}

function printPlan(options: TortureOptions): void {
  let left = options.steps ?? DEFAULT_PLAN_STEPS;
  for (const step of stepsFrom(options.first, options)) {
    if ((left -= 1) < 0) return;
    console.log(describeStep(step));
  }
}

try {
  process.exit(await main(process.argv.slice(2)));
} catch (error) {
  if (!(error instanceof Failure)) throw error;
  console.error(`torture: ${error.message}`);
  process.exit(error.exitStatus);
}
