/**
 * A machine with only a processor, memory, a serial port and an initramfs: busybox, the drivers' modules, the rescue
 * archive, and a script that it runs.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ARCHITECTURES } from "./architecture.ts";
import { cpioArchive, type Entry } from "./cpio.ts";
import { moduleEntries, modulesOf, program } from "./initramfs.ts";
import type { Kernel } from "./kernel.ts";
import { processorOptions } from "./qemu.ts";

/** The modules for tsbuse and a file system, as modules.dep names them. */
const WANTED = ["ext4", "crc32c_generic", "libcrc32c", "nbd", "ublk_drv"];
const SYSTEMS = join(import.meta.dir, "../systems");

export interface BareMachine {
  readonly kernel: Kernel;
  /** The path of the initramfs. */
  readonly image: string;
  readonly memoryMib: number;
  /** The processor's model, as QEMU names it. */
  readonly model?: string;
  /** Further kernel parameters. */
  readonly parameters?: string;
}

/** The command that runs it, with its console on stdout, until its script ends or its kernel panics. */
export function bareMachine(machine: BareMachine): string[] {
  const { kernel, image, memoryMib, model, parameters = "" } = machine;
  const { qemu, board, console } = ARCHITECTURES[kernel.architecture];
  const options: readonly (readonly string[])[] = [
    ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    ["-machine", board, "-smp", "2", "-m", `${memoryMib}M`, "-serial", "stdio"],
    processorOptions("tcg", model, kernel.architecture),
    ["-kernel", kernel.image, "-initrd", image],
    ["-append", `console=${console} loglevel=1 oops=panic panic=-1 ${parameters}`],
  ];
  return [qemu.command, ...options.flat()];
}

/** Its initramfs without the rescue archive, which can be appended. @param job a script in scripts/systems. */
export function bareRoot(kernel: Kernel, job: string): Uint8Array<ArrayBuffer> {
  const entries: Entry[] = [
    ...["bin", "dev", "proc", "run", "sys", "tmp"].map((path) => ({ kind: "directory", path }) as const),
    ...["bin/sh", "bin/dd"].map((path) => ({ kind: "symlink", path, target: "busybox" }) as const),
    program("bin/busybox", readFileSync(kernel.busybox)),
    program("init", readFileSync(join(SYSTEMS, "bare-init.sh"))),
    program("job.sh", readFileSync(join(SYSTEMS, job))),
    ...moduleEntries(modulesOf(kernel, WANTED)),
  ];
  return cpioArchive(entries, 0);
}
