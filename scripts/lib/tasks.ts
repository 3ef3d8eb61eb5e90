/** Work that needs nothing of other work, and is done side by side. */
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";

export interface Task<Result> {
  readonly name: string;
  /** Writes nowhere but to the log. */
  readonly run: (log: Log) => Promise<Result>;
}

/** Tasks at once: what one waits for leaves a processor to another. */
const LANES = Math.min(2, availableParallelism());

/** A file for what a task prints. What a task leaves running can hold a pipe open for ever, and a file it can not. */
export class Log implements Disposable {
  readonly fd: number;

  constructor(readonly path: string) {
    rmSync(path, { force: true });
    // Whoever writes, and however many do: at the end.
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
 * Does all of them, {@link LANES} at a time, those first that come first. Each one's output is shown whole, when it has
 * ended; until then it is in a file below `directory`.
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

/** Those that `names` has come first, in its order. */
export function inOrder<Result>(tasks: readonly Task<Result>[], names: readonly string[]): Task<Result>[] {
  const rank = ({ name }: Task<Result>): number =>
    names.includes(name) ? names.indexOf(name) : names.length;
  return tasks.toSorted((a, b) => rank(a) - rank(b));
}
