/**
 * A first root for a kernel whose drivers of virtio and virtiofs are modules: it loads them, mounts the host's files
 * and hands over to the program that `init=` names, as a kernel that has them built in does by itself.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { cpioArchive, type Entry } from "./cpio.ts";

const BUSYBOX = "/bin/busybox";
/** What the root takes, in modules.dep's names without folder and ending. */
const WANTED = ["virtio_pci", "virtiofs"];

const INIT = `#!/bin/busybox sh
set -eux
busybox mount -t proc proc /proc
for module in $(busybox cat /modules); do busybox insmod /$module; done
busybox mount -t virtiofs root /root
for word in $(busybox cat /proc/cmdline); do
  case $word in init=*) init=\${word#init=} ;; esac
done
busybox umount /proc
exec busybox switch_root /root "$init"
`;

/**
 * Writes the archive to `path`, unless the kernel needs none.
 * @param modules `lib/modules/VERSION`, after depmod(8).
 */
export async function writeInitramfs(path: string, modules: string): Promise<void> {
  const needed = modulesInOrder(readFileSync(join(modules, "modules.dep"), "utf8"), WANTED);
  if (needed.length === 0) return;
  const files = needed.map((name) => [name.split("/").at(-1) ?? name, join(modules, name)] as const);
  const list = files.map(([name]) => `${name}\n`).join("");
  const entries: Entry[] = [
    ...["bin", "proc", "root"].map((name) => ({ kind: "directory", path: name }) as const),
    { kind: "file", path: "bin/busybox", mode: 0o755, data: readFileSync(BUSYBOX) },
    { kind: "file", path: "init", mode: 0o755, data: Buffer.from(INIT) },
    { kind: "file", path: "modules", mode: 0o644, data: Buffer.from(list) },
    ...files.map(
      ([name, file]) => ({ kind: "file", path: name, mode: 0o644, data: readFileSync(file) }) as const,
    ),
  ];
  await Bun.write(path, cpioArchive(entries, 0));
}

/** The modules in modules.dep that `wanted` need, each after those it needs; what is built in is not there. */
export function modulesInOrder(dependencies: string, wanted: readonly string[]): string[] {
  const lines = dependencies.split("\n").map((line) => line.split(": ", 2));
  const ordered: string[] = [];
  for (const name of wanted) {
    const line = lines.find(([module = ""]) => module.split("/").at(-1)?.startsWith(`${name}.ko`) === true);
    const [module = "", needs = ""] = line ?? [];
    // modules.dep(5): what is needed first comes last.
    const all = [...needs.split(" ").filter(Boolean).toReversed(), module];
    for (const each of all) if (each !== "" && !ordered.includes(each)) ordered.push(each.replace(/:$/, ""));
  }
  return ordered;
}
