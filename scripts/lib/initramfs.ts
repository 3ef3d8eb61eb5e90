/**
 * An initramfs for a kernel whose virtio and virtiofs drivers are modules: it loads them, mounts the host's files and
 * hands over to the program that `init=` names. A kernel with built-in drivers does that by itself.
 */
import { readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { cpioArchive, type Entry } from "./cpio.ts";
import type { Kernel } from "./kernel.ts";

/** The modules that the root needs, as modules.dep names them, without folder and ending. */
const WANTED = ["virtio_pci", "virtiofs"];

/** Where a guest with another processor sees the host's files: it cannot run them, so they are not its root. */
export const FOREIGN_HOST = "/root";

const init = (handOver: string) => `#!/bin/busybox sh
set -eux
busybox mount -t proc proc /proc
for module in $(busybox cat /modules); do busybox insmod /$module; done
busybox mount -t virtiofs root /root
for word in $(busybox cat /proc/cmdline); do
  case $word in init=*) init=\${word#init=} ;; esac
done
busybox umount /proc
exec busybox ${handOver}
`;

/** Writes the archive to `path`, unless the kernel needs none. depmod(8) must have seen the kernel's modules. */
export async function writeInitramfs(path: string, kernel: Kernel): Promise<void> {
  const modules = modulesOf(kernel, WANTED);
  const own = kernel.architecture === "x64";
  if (own && modules.length === 0) return;
  const script = init(own ? `switch_root /root "$init"` : `sh "${FOREIGN_HOST}$init"`);
  const entries: Entry[] = [
    ...["bin", "dev", "mnt", "proc", "root"].map((name) => ({ kind: "directory", path: name }) as const),
    program("bin/busybox", readFileSync(kernel.busybox)),
    program("init", Buffer.from(script)),
    ...moduleEntries(modules),
  ];
  await Bun.write(path, cpioArchive(entries, 0));
}

/** The paths of the modules that `wanted` need, in the order in which they can be loaded. */
export function modulesOf(kernel: Kernel, wanted: readonly string[]): string[] {
  const directory = join(kernel.modules, kernel.version);
  const names = modulesInOrder(readFileSync(join(directory, "modules.dep"), "utf8"), wanted);
  return names.map((name) => join(directory, name));
}

/** Entries for the modules at the top of the archive, and for "modules", a list of their names. */
export function moduleEntries(paths: readonly string[]): Entry[] {
  const list = paths.map((path) => `${basename(path)}\n`).join("");
  return [
    data("modules", Buffer.from(list)),
    ...paths.map((path) => data(basename(path), readFileSync(path))),
  ];
}

function data(path: string, bytes: Uint8Array): Entry {
  return { kind: "file", path, mode: 0o644, data: bytes };
}

export function program(path: string, bytes: Uint8Array): Entry {
  return { kind: "file", path, mode: 0o755, data: bytes };
}

/** The modules in modules.dep that `wanted` need, each after those it needs; built-in ones are not listed. */
function modulesInOrder(dependencies: string, wanted: readonly string[]): string[] {
  const lines = dependencies.split("\n").map((line) => line.split(": ", 2));
  const ordered: string[] = [];
  for (const name of wanted) {
    const line = lines.find(([module = ""]) => module.split("/").at(-1)?.startsWith(`${name}.ko`) === true);
    const [module = "", needs = ""] = line ?? [];
    // modules.dep(5): the module to load first comes last.
    const all = [...needs.split(" ").filter(Boolean).toReversed(), module];
    for (const each of all) if (each !== "" && !ordered.includes(each)) ordered.push(each.replace(/:$/, ""));
  }
  return ordered;
}
