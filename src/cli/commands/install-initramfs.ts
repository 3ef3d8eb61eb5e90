import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { UserError } from "../../errors.ts";
import { command } from "../command.ts";
import {
  type Builder,
  BUILDER_NAMES,
  findBuilder,
  hasProgram,
  imageCommand,
  removeFiles,
  writeFiles,
} from "../initramfs/files.ts";
import { log, printResult } from "../log.ts";
import { flag, option } from "../options/argument.ts";
import { UsageError } from "../usage-error.ts";

export default command(
  {
    name: "install-initramfs",
    summary: "Put tsbuse into the initramfs of this system",
    synopsis: "",
    details: [
      "Writes what dracut or initramfs-tools needs to put tsbuse and the nbd and ublk drivers into the images it makes: /usr/lib/dracut/modules.d/90tsbuse, or two files below /etc/initramfs-tools. Prints the command that makes the image. tsbuse itself must be on root's PATH or in /usr/local.",
      'The image attaches what the kernel\'s command line asks for before the root file system is mounted, which may be on it: with tsbuse=ramdisk,512M,/dev/ublkb0 it runs "tsbuse ramdisk 512M /dev/ublkb0 --initrd". The parameter may be given several times. A comma in a word is written twice; a parameter with blanks is put in double quotes.',
      "A failed attempt is repeated for half a minute, because the disk to be served may appear late. After that the boot continues without it.",
      "Where systemd is the first process, take a ublk node: systemd stops every process for a moment when it leaves the initramfs and when it shuts down, which ends an NBD node that is attached by ioctl.",
    ],
    examples: [
      { line: "sudo tsbuse install-initramfs", does: "for the builder that is installed" },
      {
        line: "sudo tsbuse install-initramfs --remove",
        does: "take away what it wrote, and nothing else",
      },
      {
        line: "tsbuse install-initramfs --dracut --root ./package",
        does: "into a directory that a package is made of",
      },
    ],
  },
  {
    dracut: flag("For dracut; default: what is installed"),
    initramfsTools: flag("For initramfs-tools; default: what is installed"),
    remove: flag("Remove the files again"),
    root: option({
      valueHint: "DIR",
      description: "Root directory of the system; default /",
      parse: directory,
    }),
  },
  ({ root = "/", ...args }) => {
    const chosen = chosenBuilder(args.dracut, args.initramfsTools);
    return args.remove
      ? remove(chosen === undefined ? BUILDER_NAMES : [chosen], root)
      : install(chosen ?? findBuilder(root), root);
  },
);

function install(builder: Builder, root: string): number {
  for (const path of writeFiles(builder, root)) log.info(`wrote ${path}`);
  if (!hasProgram(root)) {
    log.warn(
      "there is no tsbuse in /usr/local/bin or /usr/bin: put it there, or the image will be without it",
    );
  }
  return printResult(`sudo ${imageCommand(builder)}`);
}

function remove(builders: readonly Builder[], root: string): number {
  const statuses = builders.map((builder) => {
    const paths = removeFiles(builder, root);
    for (const path of paths) log.info(`removed ${path}`);
    return paths.length === 0 ? 0 : printResult(`sudo ${imageCommand(builder)}`);
  });
  return Math.max(...statuses);
}

function chosenBuilder(dracut: boolean, initramfsTools: boolean): Builder | undefined {
  if (dracut && initramfsTools) throw new UsageError("give one of --dracut and --initramfs-tools, not both");
  if (dracut) return "dracut";
  return initramfsTools ? "initramfs-tools" : undefined;
}

function directory(name: string): string {
  const root = resolve(name);
  if (existsSync(root)) return root;
  throw new UserError(`${name} does not exist: give the root directory of a system`);
}
