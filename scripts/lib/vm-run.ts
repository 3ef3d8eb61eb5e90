/**
 * Runs a job in a virtual machine: boots again if a boot fails, and reports what went wrong.
 */
import { boot, type Outcome } from "./boot.ts";
import { Tail } from "./guest-output.ts";
import type { MachinePlan } from "./machine.ts";
import { StopSwitch } from "./stop-switch.ts";

/** How long a boot may take until the command starts: ten times what it takes under software emulation. */
const START_MS_MAX = { x64: 60_000, arm64: 240_000 } as const;

/** A boot under software emulation dies before the command starts now and then. */
const BOOTS_MAX = 3;

/** The exit status if the virtual machine failed, not the command. */
export const STATUS_VM_FAILED = 125;

const TAIL_LINES_MAX = 40;

/** What a run needs besides the machine's plan. */
export interface RunOptions {
  /** The limit of the whole run, with all its boots. */
  readonly timeoutSeconds: number;
  /** Prints a line for the user. */
  readonly log: (line: string) => void;
  /** Prints a line only with --verbose. */
  readonly logDetail: (line: string) => void;
}

/** Returns the exit status: the command's, or one that says why it has none. */
export async function runJob(plan: MachinePlan, options: RunOptions): Promise<number> {
  using stopSwitch = new StopSwitch(options.timeoutSeconds);
  const tail = new Tail();
  const outcome = await bootUntilStarted(plan, options, stopSwitch.signal, tail);

  if (outcome.kind === "exited") {
    reportExit(outcome, options);
    return outcome.status;
  }
  const { stop } = stopSwitch;
  if (stop?.signal === undefined) {
    showLines("the end of the kernel's console", outcome.console, options);
    showLines("the last lines of the command's output", tail.lines(TAIL_LINES_MAX), options);
  }
  options.log(stop?.message ?? explainFailure(outcome));
  return stop?.status ?? STATUS_VM_FAILED;
}

/** Repeats a boot that failed before the command started. Never runs a command twice: that could do harm. */
async function bootUntilStarted(
  plan: MachinePlan,
  options: RunOptions,
  signal: AbortSignal,
  tail: Tail,
): Promise<Outcome> {
  for (let boots = 1; ; boots += 1) {
    options.logDetail(`booting Linux ${plan.kernel.version}`);
    const outcome = await boot({
      plan,
      startMs: START_MS_MAX[plan.kernel.architecture],
      stdout: process.stdout,
      stderr: process.stderr,
      tail,
      signal,
    });
    if (outcome.kind !== "unstarted" || boots === BOOTS_MAX) return outcome;
    options.log(`boot ${boots} of at most ${BOOTS_MAX} failed: ${outcome.reason}`);
  }
}

function reportExit(outcome: Outcome & { readonly kind: "exited" }, options: RunOptions): void {
  if (outcome.unkillable > 0) {
    options.log(
      `SIGKILL did not end ${outcome.unkillable} of the command's processes: look for I/O that was never answered`,
    );
  }
  options.logDetail(
    `the command started after ${seconds(outcome.startedAfterMs)} and exited with ${outcome.status} after ${seconds(outcome.ranForMs)}`,
  );
}

function explainFailure(outcome: Exclude<Outcome, { readonly kind: "exited" }>): string {
  const remedy =
    outcome.console.length > 0 ? "see its console above" : "check the options and TSBUSE_VM_ACCEL";
  switch (outcome.kind) {
    case "unstarted":
      return `the virtual machine failed to start in ${BOOTS_MAX} boots: ${outcome.reason}; ${remedy}`;
    case "died":
      return `the virtual machine died while the command ran: ${outcome.reason}; ${remedy}`;
    case "stopped":
      return "the virtual machine was stopped";
  }
}

function showLines(title: string, lines: readonly string[], options: RunOptions): void {
  if (lines.length === 0) return;
  options.log(`${title}:`);
  for (const line of lines) options.log(`| ${line}`);
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
