/** Runs independent tasks side by side. */
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";

export interface Task<Result> {
  readonly name: string;
  /** Writes only to the log. */
  readonly run: (log: Log) => Promise<Result>;
}

/** Tasks at once: while one waits, the other has the processor. */
const LANES = Math.min(2, availableParallelism());

/** A file for the output of a task. Not a pipe: a process that the task leaves behind would hold that open for ever. */
export class Log implements Disposable {
  readonly fd: number;

  constructor(readonly path: string) {
    rmSync(path, { force: true });
    // Several processes may write: each appends.
    this.fd = openSync(path, "a");
  }

  say(line: string): void {
    writeSync(this.fd, `${line}\n`);
  }

  text(): string {
    return readFileSync(this.path, "utf8");
  }

  [Symbol.dispose](): void {
    closeSync(this.fd);
  }
}

/**
 * Runs all of them in order, {@link LANES} at a time. Prints the output of each as a whole when it has ended; until
 * then it is in a file below `directory`.
 */
export async function runTasks<Result>(tasks: readonly Task<Result>[], directory: string): Promise<Result[]> {
  mkdirSync(directory, { recursive: true });
  const waiting = [...tasks];
  const results: Result[] = [];
  const lane = async (): Promise<void> => {
    for (let task = waiting.shift(); task !== undefined; task = waiting.shift())
      results.push(await runTask(task, directory));
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  return results;
}

async function runTask<Result>(task: Task<Result>, directory: string): Promise<Result> {
  using log = new Log(join(directory, `${task.name.replaceAll("/", "-")}.log`));
  const begin = performance.now();
  const result = await task.run(log);
  console.log(`--- ${task.name}: ${Math.round((performance.now() - begin) / 1000)} s\n${log.text()}`);
  return result;
}

/** The tasks in `names` first, in its order, then the others. */
export function inOrder<Result>(tasks: readonly Task<Result>[], names: readonly string[]): Task<Result>[] {
  const rank = ({ name }: Task<Result>): number =>
    names.includes(name) ? names.indexOf(name) : names.length;
  return tasks.toSorted((a, b) => rank(a) - rank(b));
}
