/** How a module would be loaded, without loading it: `tsbuse doctor` shows the plan, and attaching carries it out. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { messageOf } from "../errors.ts";
import { readNumber } from "../libc/sysfs.ts";
import { type ModuleSystem, thisSystem } from "./system.ts";
import { ModuleTree } from "./tree.ts";

export type ModulePlan =
  | { readonly way: "loaded"; readonly builtIn: boolean }
  /** It is part of the kernel, which does not show it. */
  | { readonly way: "hidden" }
  /** By modprobe(8), which knows what modprobe.d(5) says; where that fails, by {@link files}. */
  | { readonly way: "modprobe"; readonly program: string; readonly files: readonly string[] }
  /** By finit_module(2), one after the other. */
  | { readonly way: "files"; readonly files: readonly string[] }
  | ({ readonly way: "none" } & Obstacle);

/** Why a module cannot be loaded, and what to do about it: two parts of one line. */
export interface Obstacle {
  readonly cause: string;
  readonly remedy: string;
}

/** What there is to say of the way `hidden`. */
export const HIDDEN: Obstacle = {
  cause: "it is built into the kernel, but /sys does not show it",
  remedy: 'see that /sys is mounted, and "dmesg"',
};

/** @param name of the module, with underscores: `ublk_drv`. */
export async function planModule(name: string, system: ModuleSystem = thisSystem()): Promise<ModulePlan> {
  if (!existsSync(join(system.sys, "module")))
    return none("/sys is missing", 'run "mount -t sysfs sysfs /sys"');
  const shown = join(system.sys, "module", name);
  // What is part of the kernel was never loaded, and has no such state.
  if (existsSync(shown)) return { way: "loaded", builtIn: !existsSync(join(shown, "initstate")) };
  if (readNumber(join(system.proc, "sys/kernel/modules_disabled")) === 1) {
    return none("no module can be (kernel.modules_disabled=1)", "reboot, and load it before that is set");
  }
  const tree = ModuleTree.find(system.release, system.roots);
  if (tree === undefined) {
    return none(
      `the running kernel has no modules, ${system.roots[0]}/${system.release} does not exist`,
      'install its modules, or boot a kernel that has them; in a container, run "modprobe" outside',
    );
  }
  if (tree.isBuiltIn(name)) return { way: "hidden" };
  const files = await findFiles(tree, name);
  if (!Array.isArray(files)) return files;
  const program = Bun.which("modprobe", { PATH: system.path });
  return program === null ? { way: "files", files } : { way: "modprobe", program, files };
}

async function findFiles(tree: ModuleTree, name: string): Promise<string[] | ModulePlan> {
  try {
    const files = await tree.chain(name);
    if (files !== undefined) return files;
    return none(
      `there is no ${name}.ko in ${tree.directory}`,
      "install the kernel's extra modules (linux-modules-extra, kernel-modules-extra), or another kernel",
    );
  } catch (error) {
    return none(
      `a module in ${tree.directory} cannot be read (${messageOf(error)})`,
      "install the kernel's modules anew",
    );
  }
}

function none(cause: string, remedy: string): ModulePlan {
  return { way: "none", cause, remedy };
}
