/** The target of a replay. */
import { realpathSync, statSync } from "node:fs";
import { basename } from "node:path";
import { Loop } from "../../../devices/loop.ts";
import type { BlockDevice } from "../../device.ts";
import { UserError } from "../../errors.ts";
import { findUse } from "../../nodes/node-use.ts";
import { deviceMaker, DEVICES } from "../device-maker.ts";
import { UsageError } from "../usage-error.ts";

export interface WantedTarget {
  readonly target: string;
  readonly argument: string | undefined;
  readonly words: readonly string[];
  readonly destroy: boolean;
  /** Whether a layer keeps changes from it. */
  readonly isSpared: boolean;
  /** Whether the replay would change data. */
  readonly changes: boolean;
  /** The size in bytes of the recorded device. */
  readonly size: number;
}

/** The caller closes it. @throws UserError when it is in use, or must not be overwritten. */
export async function openTarget(wanted: WantedTarget): Promise<BlockDevice> {
  const { target, argument, words, size } = wanted;
  if (target === "loop") {
    if (argument === undefined)
      throw new UsageError("an argument is missing: give tsbuse replay FILE loop FILE");
    return openFile(argument, wanted);
  }
  const isDevice = DEVICES.some((name) => name === target);
  if (!isDevice && !/\.[cm]?[jt]s$/.test(target)) {
    if (argument === undefined) return openFile(target, wanted);
    throw new UsageError(
      `unexpected argument "${argument}": a file or a block device takes none, leave it out`,
    );
  }
  const sized = isDevice ? (argument ?? String(size)) : argument;
  const make = deviceMaker({
    by: "replay",
    name: target,
    argument: sized,
    words,
    mayDestroy: false,
    isSpared: wanted.isSpared,
  });
  return make();
}

function openFile(path: string, { destroy, isSpared, changes }: WantedTarget): Loop {
  const readOnly = isSpared || !changes;
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats === undefined)
    throw new UserError(`${path} does not exist: check the name, or make a file of that size first`);
  const isBlockDevice = stats.isBlockDevice();
  const use = isBlockDevice ? findUse(basename(realpathSync(path))) : undefined;
  if (use !== undefined) throw new UserError(`${path} is ${use.how}: ${use.remedy}`);
  if (!readOnly && !destroy)
    throw new UsageError(
      `the replay would overwrite ${path}: add --destroy if its contents may be lost, --reads to repeat reads alone, or --layer cow to keep it as it is`,
    );
  return new Loop(path, { readOnly, direct: isBlockDevice });
}
