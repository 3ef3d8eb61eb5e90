/** Runs the tortures in the virtual machine. Takes the options of scripts/torture.ts, exits with 1 after a fault. */
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { describeError } from "../lib/failure.ts";
import { cleanUp } from "./cleanup.ts";
import { parseOptions, repeatLine, type TortureOptions } from "./options.ts";
import { describeStep, plantedStep, type Step, stepsFrom } from "./plan.ts";
import { Fault } from "./process.ts";
import { runStep } from "./step.ts";
import { Watch } from "./watch.ts";

const ALL_LOGS = join(import.meta.dir, "../../dist/torture");

/** A folder for each run: several may run at once in the same checkout. */
function logsName({ seed, plant }: TortureOptions): string {
  return plant === undefined ? `${seed}` : `${seed}-${plant}`;
}

/** Returns the exit status. */
async function torture(options: TortureOptions): Promise<number> {
  const logs = join(ALL_LOGS, logsName(options));
  rmSync(logs, { recursive: true, force: true });
  mkdirSync(logs, { recursive: true });
  const { minutes = Number.POSITIVE_INFINITY, steps = Number.POSITIVE_INFINITY } = options;
  const deadline = performance.now() + minutes * 60_000;
  using watch = new Watch();
  let done = 0;
  let faults = 0;
  for (const planned of stepsFrom(options.first, options)) {
    if (done >= steps || performance.now() > deadline) break;
    done += 1;
    const step = options.plant === undefined ? planned : plantedStep(planned);
    // Before the step begins: a machine that dies prints nothing more.
    process.stdout.write(`${describeStep(step)}: `);
    const startedMs = performance.now();
    const fault = await faultOf(async () => {
      await runStep(step, logs, options.plant);
      watch.check();
    });
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
    console.log(fault === undefined ? `${seconds} s` : `FAULT: ${fault}`);
    if (fault === undefined) {
      const own = readdirSync(logs).filter((name) => name.startsWith(`step-${step.number}-`));
      for (const name of own) rmSync(join(logs, name));
      continue;
    }
    faults += 1;
    report(options, step, done);
    const failure = await faultOf(() => cleanUp(join(logs, `step-${step.number}-cleanup.log`)));
    if (failure !== undefined) console.log(`cannot go on: ${failure}`);
    if (failure !== undefined || !options.keepGoing) return 1;
  }
  console.log(`${done} steps, ${faults === 0 ? "no fault" : `${faults} with faults`}`);
  return faults === 0 ? 0 : 1;
}

async function faultOf(work: () => Promise<void>): Promise<string | undefined> {
  try {
    await work();
    return undefined;
  } catch (error) {
    // A bug in the torture itself is shown with its stack.
    if (!(error instanceof Fault)) console.error(error);
    return describeError(error);
  }
}

function report(options: TortureOptions, step: Step, steps: number): void {
  const logs = `dist/torture/${logsName(options)}`;
  console.log(`seed ${options.seed}, step ${step.number}; the steps so far are above, the logs in ${logs}`);
  console.log(
    `the step alone: ${repeatLine({ ...options, without: [], transport: undefined }, step.number, 1)}`,
  );
  console.log(`all of them: ${repeatLine(options, options.first, steps)}`);
}

const task = parseOptions(process.argv.slice(2));
// It disconnects and kills whatever it finds, so it must run in a machine of its own.
if (process.env["TSBUSE_VM"] !== "1") throw new Error("run it with bun run torture, in the virtual machine");
process.exit(task.kind === "run" ? await torture(task.options) : 2);
