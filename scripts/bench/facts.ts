/** The machine and the programs of a run. */
import { cpus, release, totalmem } from "node:os";
import type { Machine } from "./results.ts";

/** Commands that print their version. */
export type VersionCommands = Readonly<Record<string, readonly string[]>>;

/** @param versions by the name of the program in the results. */
export async function describeMachine(versions: VersionCommands): Promise<Machine> {
  const said = Object.entries(versions).map(
    async ([name, command]) => [name, await versionOf(command)] as const,
  );
  return {
    kernel: release(),
    cpu: cpus()[0]?.model ?? "unknown",
    cpus: cpus().length,
    memoryMib: Math.round(totalmem() / 2 ** 20),
    versions: Object.fromEntries([["bun", Bun.version], ...(await Promise.all(said))]),
  };
}

/** The first text in a command's output that looks like a version. */
async function versionOf(command: readonly string[]): Promise<string> {
  const child = Bun.spawn([...command], { stdio: ["ignore", "pipe", "pipe"] });
  const output = (await Promise.all([child.stdout.text(), child.stderr.text()])).join("\n");
  return /\d+(?:\.\d+)+(?:[-.][\w.]+)*/.exec(output)?.[0] ?? "unknown";
}
