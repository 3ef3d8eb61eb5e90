import { Ramdisk, RAMDISK_SIZE_MAX, RAMDISK_SIZE_MIN } from "../../../devices/ramdisk.ts";
import { UserError } from "../../errors.ts";
import * as libc from "../../libc/index.ts";
import { deviceCommand } from "../command.ts";
import { log } from "../log.ts";
import { flag, positional } from "../options/argument.ts";
import { TARGET } from "../options/serving.ts";
import { parseBlocks } from "../options/values.ts";
import { serveCommand } from "../serving/serve-command.ts";
import { formatSize } from "../text.ts";
import { UsageError } from "../usage-error.ts";

export default deviceCommand(
  {
    name: "ramdisk",
    summary: "A disk in memory, allocated as it is written",
    synopsis: "SIZE TARGET",
    details: [
      "SIZE is from 4K to 1T and may be more than the machine's memory: only what is written takes memory. Trimmed and zeroed ranges are given back. Before the system has no memory left, or the control group that the command runs in, writes to where nothing was written yet fail. The contents are lost when the command ends.",
    ],
    examples: [
      { line: "tsbuse ramdisk 512M /dev/nbd0", does: "a disk of 512 MiB on /dev/nbd0, until Ctrl-C" },
      {
        line: "tsbuse ramdisk 2G auto --run 'mkfs.ext4 -q $TSBUSE_DEVICE && fsck.ext4 -f $TSBUSE_DEVICE'",
        does: "on the first free node, for as long as a command runs",
      },
      { line: "tsbuse ramdisk 1G unix:/tmp/disk.sock", does: "for NBD clients such as qemu, without root" },
    ],
  },
  {
    size: positional("Bytes, or with K, M, G, T: 512M, 1.5G"),
    target: TARGET,
    populate: flag("Allocate all of the memory at once"),
    hugePages: flag("Ask the kernel for transparent huge pages"),
  },
  ({ target, populate, hugePages, ...args }, options) => {
    const size = ramdiskSize(args.size, options.blockSize);
    return serveCommand(target, options, () => {
      checkMemory(args.size, size, populate);
      return { device: new Ramdisk(size, { populate, hugePages, log: (line) => log.warn(line) }) };
    });
  },
);

/** @throws UserError when memory is to be set aside that is not there. */
function checkMemory(text: string, size: number, populate: boolean): void {
  const found = libc.spareMemory();
  if (found === undefined) return;
  const spare = Math.max(0, found.bytes);
  if (size <= spare) return;
  if (populate) {
    throw new UserError(
      `--populate of ${text} cannot be, ${formatSize(spare)} of memory can be had: give a smaller size, or leave it out`,
    );
  }
  log.warn(
    `${text} is more than the ${formatSize(spare)} of memory that can be had: writes fail beyond that`,
  );
}

/** @throws UsageError */
export function ramdiskSize(text: string, blockSize?: number): number {
  const size = parseBlocks(text, "SIZE", blockSize);
  if (size < RAMDISK_SIZE_MIN || size > RAMDISK_SIZE_MAX) {
    throw new UsageError(`SIZE ${text} cannot be: give a size from 4K to 1T`);
  }
  return size;
}
