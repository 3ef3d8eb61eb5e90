/** Runs programs in tests: to their end, within a time limit. Keeps the output for the message of a failure. */

export interface Finished {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

const DEFAULT_LIMIT_MS = 120_000;

/** Runs a program to its end, whatever its status. @throws Error if it takes longer than `limitMs`. */
export async function run(command: readonly string[], limitMs = DEFAULT_LIMIT_MS): Promise<Finished> {
  const child = Bun.spawn([...command], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const timer = setTimeout(() => child.kill("SIGKILL"), limitMs);
  const [stdout, stderr, status] = await Promise.all([
    child.stdout.text(),
    child.stderr.text(),
    child.exited,
  ]);
  clearTimeout(timer);
  if (child.signalCode === "SIGKILL")
    throw new Error(`${command.join(" ")}: not done after ${limitMs} ms\n${stderr}`);
  return { status, stdout, stderr };
}

/** Runs a shell script with `set -eu`. Returns its output. @throws Error with the output if it fails. */
export async function sh(script: string, limitMs = DEFAULT_LIMIT_MS): Promise<string> {
  const { status, stdout, stderr } = await run(["/bin/sh", "-euc", script], limitMs);
  if (status !== 0) throw new Error(`exit ${status} of: ${script}\n${stdout}\n${stderr}`);
  return stdout.trim();
}

/** Milliseconds between checks: checking without a pause would take the processor from what is waited for. */
const LOOK_MS = 5;
const LOOK_MS_MAX = 40;

/** Waits until `condition` holds, checking often. @throws Error naming `what` after `limitMs`. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  limitMs = 30_000,
): Promise<void> {
  const deadline = performance.now() + limitMs;
  for (let pauseMs = LOOK_MS; !(await condition()); pauseMs = Math.min(2 * pauseMs, LOOK_MS_MAX)) {
    if (performance.now() > deadline) throw new Error(`not within ${limitMs} ms: ${what}`);
    await Bun.sleep(pauseMs);
  }
}
