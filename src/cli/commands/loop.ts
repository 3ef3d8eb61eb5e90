import { realpathSync, statSync, unlinkSync } from "node:fs";
import { Loop } from "../../../devices/loop.ts";
import type { Heirloom } from "../../control/handover.ts";
import { UserError } from "../../errors.ts";
import { deviceCommand } from "../command.ts";
import { log } from "../log.ts";
import { flag, option, positional } from "../options/argument.ts";
import { blocks, TARGET } from "../options/serving.ts";
import { parseSize } from "../options/values.ts";
import { whyNoSwapAt } from "../serving/swap-place.ts";
import { serveCommand } from "../serving/serve-command.ts";

export default deviceCommand(
  {
    name: "loop",
    summary: "A file or another block device",
    synopsis: "FILE TARGET",
    details: [
      "FILE is a regular file or a block device; a block device is opened exclusively, so devices can be chained but not shared. A flush is fdatasync(2), trimmed ranges become holes, and an error of the file is an error of the device.",
      "Requests that the page cache can satisfy are answered at once. Requests that must go to the disk, all requests with --direct, flushes and FUA writes run concurrently through io_uring(7), up to 128 for each connection. On a file system that cannot say what it has in memory, and without io_uring, requests are carried out one after the other; --verbose says if io_uring is missing.",
    ],
    examples: [
      { line: "tsbuse loop disk.img /dev/nbd0", does: "an image, its partitions as /dev/nbd0p1 and so on" },
      { line: "tsbuse loop new.img auto --create 10G", does: "a new sparse file" },
      { line: "tsbuse loop /dev/nbd0 /dev/nbd1 --read-only", does: "one device on top of another" },
    ],
  },
  {
    file: positional("Regular file or block device"),
    target: TARGET,
    direct: flag("Bypass the page cache (O_DIRECT)"),
    offset: option({
      valueHint: "BYTES",
      description: "Where the device begins in FILE (default 0)",
      parse: parseSize,
    }),
    size: option({
      valueHint: "BYTES",
      description: "How much of FILE to serve (default: the rest)",
      parse: blocks,
    }),
    create: option({
      valueHint: "SIZE",
      description: "Make FILE, sparse; it must not exist",
      parse: blocks,
    }),
  },
  ({ file, target, direct, offset, size, create }, options) => {
    const loopOptions = {
      // A new file must be opened for writing, if only to set its length.
      readOnly: options.readOnly || (options.stack.sparesDevice && create === undefined),
      direct,
      ...(offset !== undefined && { offset }),
      ...(size !== undefined && { size }),
      ...(create !== undefined && { create }),
    };
    refuseItself(file, target);
    return serveCommand(target, options, (inherited) => {
      const before = inherited?.kind === "loop" ? inherited : undefined;
      const hasLost = before?.facts["hasLost"] === true;
      const loop = new Loop(file, { ...loopOptions, claim: before?.take("claim"), hasLost });
      if (options.verbose && loop.ringFailure !== undefined)
        log.info(`${file} is served one request at a time: ${loop.ringFailure}`);
      const heirloom: Heirloom = {
        kind: "loop",
        isData: false,
        fds: { claim: loop.claim },
        // A getter, because the facts change while the device is served.
        get facts() {
          return { hasLost: loop.hasLost };
        },
      };
      const whyNoSwap = options.swap ? (whyNoSwapAt(file, direct) ?? false) : undefined;
      const undo = loop.created && { undo: () => unlinkSync(file) };
      return { device: loop, heirloom, whyNoSwap, ...undo };
    });
  },
);

/** A device that serves itself would deadlock. */
function refuseItself(file: string, target: string): void {
  if (file === target) throw new UserError(`${file} cannot be served on itself: choose another target`);
  const stats = statSync(file, { throwIfNoEntry: false });
  if (stats?.isBlockDevice() !== true) return;
  const rdev = statSync(target, { throwIfNoEntry: false })?.rdev;
  const isPartition = realpathSync(file).startsWith(`${target}p`);
  if (stats.rdev === rdev || isPartition) {
    throw new UserError(`${file} cannot be served on itself: choose another target`);
  }
}
