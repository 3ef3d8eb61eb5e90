/** Loads a driver that is a module, unless it is loaded already: by modprobe(8), or without it. */
import { join } from "node:path";
import { UserError } from "../errors.ts";
import { readAttribute } from "../libc/sysfs.ts";
import { insertModule } from "./insert.ts";
import { commandLineWords, type ModuleParameters, parameterWords } from "./parameters.ts";
import { HIDDEN, type Obstacle, planModule } from "./plan.ts";
import { type ModuleSystem, thisSystem } from "./system.ts";

/**
 * Loads a module with its dependencies, unless it is there. Needs CAP_SYS_MODULE.
 * @param name with underscores: `ublk_drv`.
 * @param parameters are used when it is loaded here.
 * @param log gets a line for each parameter that a module loaded before has otherwise.
 * @throws UserError if it cannot be loaded, naming the cause and the remedy.
 */
export async function ensureModule(
  name: string,
  parameters: ModuleParameters = {},
  log: (line: string) => void = () => undefined,
  system: ModuleSystem = thisSystem(),
): Promise<void> {
  const plan = await planModule(name, system);
  switch (plan.way) {
    case "loaded":
      for (const line of differences(name, parameters, plan.builtIn, system)) log(line);
      return;
    case "hidden":
      throw cannot(name, HIDDEN);
    case "none":
      throw cannot(name, plan);
    case "modprobe":
      return byModprobe(name, plan.program, plan.files, parameters, system);
    case "files":
      return byFiles(name, plan.files, parameters, system);
  }
}

function cannot(name: string, { cause, remedy }: Obstacle): UserError {
  return new UserError(`the ${name} driver cannot be loaded, ${cause}: ${remedy}`);
}

async function byModprobe(
  name: string,
  program: string,
  files: readonly string[],
  parameters: ModuleParameters,
  system: ModuleSystem,
): Promise<void> {
  const run = runModprobe(program, name, ...parameterWords(parameters));
  if (run.status === 0 && (await planModule(name, system)).way === "loaded") return;
  const reason = run.stderr || `"modprobe ${name}" had no effect`;
  // What the administrator has put in the module's place is not to be gone around.
  if (/^install /m.test(runModprobe(program, "--show-depends", name).stdout)) {
    const remedy = `look for "install ${name}" in /etc/modprobe.d`;
    throw cannot(name, { cause: `modprobe.d has another command for it (${reason})`, remedy });
  }
  // busybox's knows fewer files, and none without modules.dep; and where this fails too, it says why.
  await byFiles(name, files, parameters, system);
}

function runModprobe(program: string, ...words: readonly string[]) {
  const run = Bun.spawnSync([program, ...words], { stdout: "pipe", stderr: "pipe" });
  const lastLine = run.stderr.toString().trim().split("\n").at(-1) ?? "";
  return { status: run.exitCode, stdout: run.stdout.toString(), stderr: lastLine };
}

async function byFiles(
  name: string,
  files: readonly string[],
  parameters: ModuleParameters,
  system: ModuleSystem,
): Promise<void> {
  const commandLine = readAttribute(join(system.proc, "cmdline")) ?? "";
  for (const [index, path] of files.entries()) {
    const isLast = index === files.length - 1;
    const words = isLast ? [...commandLineWords(name, commandLine), ...parameterWords(parameters)] : [];
    const obstacle = await insertModule(path, words.join(" "), system);
    if (obstacle !== undefined) throw cannot(name, obstacle);
  }
}

/** What was asked for and is unavailable, a line each. */
function differences(
  name: string,
  parameters: ModuleParameters,
  builtIn: boolean,
  system: ModuleSystem,
): string[] {
  const directory = join(system.sys, "module", name, "parameters");
  return parameterWords(parameters).flatMap((word) => {
    const [parameter = "", wanted] = word.split("=");
    const value = readAttribute(join(directory, parameter));
    if (value === undefined || value === wanted) return [];
    const remedy = builtIn
      ? `boot with ${name}.${word}`
      : `"modprobe -r ${name}" first, while nothing is attached`;
    return [`${name} is there already with ${parameter}=${value} instead of ${wanted}: ${remedy}`];
  });
}
