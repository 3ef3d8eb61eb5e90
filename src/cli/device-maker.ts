/** Devices that a command makes for its own use, without attaching them. */
import { Deadbeef } from "../../devices/deadbeef.ts";
import { Loop } from "../../devices/loop.ts";
import { Ramdisk } from "../../devices/ramdisk.ts";
import type { MakeDevice } from "../check/check.ts";
import { UserModule } from "../module/load.ts";
import { ramdiskSize } from "./commands/ramdisk.ts";
import { parseBlocks } from "./options/values.ts";
import { parseModuleOptions } from "./options/words.ts";
import { didYouMean, UsageError } from "./usage-error.ts";

/** Devices that have a name. */
export const DEVICES = ["ramdisk", "loop", "deadbeef"] as const;

export interface Wanted {
  /** The command that needs it. */
  readonly by: "check" | "replay";
  readonly name: string;
  readonly argument: string | undefined;
  readonly words: readonly string[];
  readonly mayDestroy: boolean;
  /** Whether a layer keeps changes from the device. */
  readonly isSpared: boolean;
}

/** @throws UsageError */
export function deviceMaker(wanted: Wanted): MakeDevice {
  const { name, argument } = wanted;
  if (name === "ramdisk") {
    const size = ramdiskSize(needed(wanted, "ramdisk SIZE"));
    return () => new Ramdisk(size);
  }
  if (name === "deadbeef") {
    const size = parseBlocks(argument ?? "64M", "SIZE");
    return () => new Deadbeef(size);
  }
  if (name === "loop") return loopMaker(wanted, needed(wanted, "loop FILE"));
  return moduleMaker(wanted);
}

function loopMaker({ mayDestroy, isSpared }: Wanted, path: string): MakeDevice {
  if (!mayDestroy && !isSpared) {
    throw new UsageError(
      `the check would overwrite ${path}: add --destroy if its contents may be lost, or --layer cow to keep it as it is`,
    );
  }
  return () => new Loop(path, { readOnly: isSpared });
}

function moduleMaker({ name, argument, words }: Wanted): MakeDevice {
  if (!/[./]/.test(name)) {
    const remedy = didYouMean(name, DEVICES, "give ramdisk, loop, deadbeef or the path of a module");
    throw new UsageError(`unknown device "${name}": ${remedy}`);
  }
  if (argument !== undefined) {
    throw new UsageError(
      `unexpected argument "${argument}": give a module its options after --, as KEY=VALUE`,
    );
  }
  const options = parseModuleOptions(words);
  const module = new UserModule(name);
  return () => module.load(options);
}

function needed({ by, argument }: Wanted, usage: string): string {
  if (argument !== undefined) return argument;
  throw new UsageError(`an argument is missing: give tsbuse ${by} ${usage}`);
}
