import {
  adoptRamdisk,
  byMethods,
  HUGE_CHUNK_BYTES,
  Ramdisk,
  RAMDISK_SIZE_MAX,
  RAMDISK_SIZE_MIN,
  type RamdiskOptions,
} from "../../../devices/ramdisk.ts";
import type { Inherited } from "../../control/claim.ts";
import { UserError } from "../../errors.ts";
import * as libc from "../../libc/index.ts";
import { deviceCommand } from "../command.ts";
import { log } from "../log.ts";
import { flag, positional } from "../options/argument.ts";
import { TARGET } from "../options/serving.ts";
import { parseBlocks } from "../options/values.ts";
import { type MadeDevice, serveCommand } from "../serving/serve-command.ts";
import { formatSize } from "../text.ts";
import { UsageError } from "../usage-error.ts";

/** The kind of data that it hands over to its next server. */
const HEIRLOOM = "ramdisk";

export default deviceCommand(
  {
    name: "ramdisk",
    summary: "A disk in memory, allocated as it is written",
    synopsis: "SIZE TARGET",
    details: [
      "SIZE is from 4K to 1T and may be more than the machine's memory: only what is written takes memory. Trimmed and zeroed ranges are given back. Before the system runs out of memory, or the command's control group, writes to new blocks fail. The contents are lost when the command ends.",
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
    const { handover } = options;
    const how = { populate, hugePages, handover, log: (line: string) => log.warn(line) };
    return serveCommand(target, options, (inherited) => {
      if (options.takeOver) return made(adopt(target, size, how, inherited));
      checkMemory(args.size, size, populate);
      return made(new Ramdisk(size, how));
    });
  },
);

/** The next server needs the same size and options, or it would look for chunks in the wrong place. */
function made(device: Ramdisk): MadeDevice {
  const { files, size } = device;
  if (files === undefined) return { device };
  const { bytes, chunks } = files;
  const facts = { size, chunkBytes: device.chunkBytes };
  const fds = chunks === undefined ? { bytes } : { bytes, chunks };
  return { device: byMethods(device), heirloom: { kind: HEIRLOOM, isData: true, fds, facts } };
}

/** @throws UserError when the previous process has no such RAM disk. */
function adopt(
  target: string,
  size: number,
  options: RamdiskOptions,
  inherited: Inherited | undefined,
): Ramdisk {
  if (inherited?.kind !== HEIRLOOM)
    throw new UserError(`${target} is no RAM disk with --handover: give the command that attached it`);
  const { size: before, chunkBytes } = inherited.facts;
  const populated = chunkBytes === 0;
  const hugePages = populated ? options.hugePages === true : chunkBytes === HUGE_CHUNK_BYTES;
  if (before !== size) throw new UserError(`${target} has ${String(before)} bytes: give that size`);
  const bytes = inherited.take("bytes");
  if (bytes === undefined) throw new UserError(`${target} comes without its data: attach it anew`);
  const chunks = populated ? undefined : inherited.take("chunks");
  return adoptRamdisk(
    size,
    { ...options, populate: populated, hugePages, handover: true },
    { bytes, chunks },
  );
}

/** @throws UserError if there is less memory than it must allocate. */
function checkMemory(text: string, size: number, populate: boolean): void {
  const found = libc.spareMemory();
  if (found === undefined) return;
  const spare = Math.max(0, found.bytes);
  if (size <= spare) return;
  if (populate) {
    throw new UserError(
      `--populate of ${text} needs more than the ${formatSize(spare)} of memory available: give a smaller size, or leave it out`,
    );
  }
  log.warn(`${text} is more than the ${formatSize(spare)} of memory available: writes fail beyond that`);
}

/** @throws UsageError */
export function ramdiskSize(text: string, blockSize?: number): number {
  const size = parseBlocks(text, "SIZE", blockSize);
  if (size < RAMDISK_SIZE_MIN || size > RAMDISK_SIZE_MAX) {
    throw new UsageError(`SIZE ${text} is out of range: give a size from 4K to 1T`);
  }
  return size;
}
