/**
 * A machine for arm64 in software emulation: Debian's kernel for it, and an initramfs of busybox, the drivers' modules
 * and the rescue archive, which does the table of systems.
 */
import { existsSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rename, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { $ } from "bun";
import { aptGet, ensureInstalled, findCommand } from "./apt.ts";
import { cpioArchive, type Entry } from "./cpio.ts";
import { Failure } from "./failure.ts";
import { modulesInOrder } from "./initramfs.ts";
import { cacheDirectory } from "./kernel.ts";
import { packageLists } from "./kernel-package.ts";
import { rescueArchive } from "./rescue-archive.ts";

/** Kernels by the bytes in a page, in KiB, and the packages that stand for their newest versions. */
export const ARM64_KERNELS = { 4: "linux-image-cloud-arm64", 16: "linux-image-arm64-16k" } as const;
export type PageKib = keyof typeof ARM64_KERNELS;

const SUITE = "trixie";
/** glibc and its loader for arm64: a package for cross compilers, which installs on any machine. */
export const ARM64_ROOT = "/usr/aarch64-linux-gnu";
/** Those that tsbuse and the table take, in modules.dep's names. */
const WANTED = ["ext4", "crc32c_generic", "libcrc32c", "nbd", "ublk_drv"];
const SYSTEMS = join(import.meta.dir, "../systems");

/** The command that boots it with tsbuse's binary, which prints the table on its console, and ends. @throws Failure */
export async function arm64Machine(pages: PageKib, tsbuse: string, directory: string): Promise<string[]> {
  await ensureInstalled([
    { command: "qemu-system-aarch64", package: "qemu-system-arm" },
    { file: join(ARM64_ROOT, "lib/libc.so.6"), package: "libc6-arm64-cross" },
    { command: "depmod", package: "kmod" },
  ]);
  const system = await ensureSystem(pages);
  const image = join(directory, "initramfs");
  await Bun.write(image, await initramfs(system, tsbuse));
  const kernel = (await readdir(join(system, "boot"))).find((name) => name.startsWith("vmlinuz-"));
  const options: readonly (readonly string[])[] = [
    ["-machine", "virt", "-cpu", pages === 16 ? "max,pauth-impdef=on" : "cortex-a57"],
    ["-accel", "tcg,thread=multi", "-smp", "2", "-m", "1024", "-nodefaults", "-no-user-config"],
    ["-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", join(system, "boot", kernel ?? "")],
    ["-initrd", image, "-append", "console=ttyAMA0 loglevel=1 oops=panic panic=-1"],
  ];
  return ["qemu-system-aarch64", ...options.flat()];
}

/** What the packages of a kernel and of busybox hold, in the user's cache. */
async function ensureSystem(pages: PageKib): Promise<string> {
  const cache = join(cacheDirectory(), "tsbuse", `arm64-${pages}k`);
  if (existsSync(cache)) return cache;
  await mkdir(join(cache, ".."), { recursive: true });
  const temporary = await mkdtemp(`${cache}.`);
  try {
    console.error(`fetching a kernel for arm64 to ${cache}`);
    await using lists = await packageLists(SUITE, temporary, "arm64");
    const meta = ARM64_KERNELS[pages];
    const record = await $`apt-cache ${lists.options} show --no-all-versions ${meta}`
      .quiet()
      .nothrow()
      .text();
    const image = /^Depends:.*?\b(linux-image-\d[^\s,]*)/m.exec(record)?.[1];
    if (image === undefined) throw new Failure(`Debian's ${SUITE} has no ${meta}: check the network`, 2);
    await aptGet([...lists.options, "download", image, "busybox-static"], temporary);
    const root = join(temporary, "root");
    for (const name of await readdir(temporary))
      if (name.endsWith(".deb")) await $`dpkg-deb --extract ${join(temporary, name)} ${root}`.quiet();
    await $`${findCommand("depmod") ?? "depmod"} -b ${join(root, "usr")} ${image.replace("linux-image-", "")}`;
    await rename(root, cache);
    return cache;
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

async function initramfs(system: string, tsbuse: string): Promise<Uint8Array> {
  const all = join(system, "usr/lib/modules");
  const modules = join(all, (await readdir(all))[0] ?? "");
  const files = new Map<string, Uint8Array>();
  for (const name of modulesInOrder(readFileSync(join(modules, "modules.dep"), "utf8"), WANTED)) {
    const unpacked = await $`xz --decompress --stdout ${join(modules, name)}`.quiet();
    files.set(basename(name, ".xz"), unpacked.stdout);
  }
  const order = [...files.keys()].map((name) => `${name}\n`).join("");
  const entries: Entry[] = [
    ...["bin", "dev", "proc", "run", "sys", "tmp"].map((path) => ({ kind: "directory", path }) as const),
    ...["bin/sh", "bin/dd"].map((path) => ({ kind: "symlink", path, target: "busybox" }) as const),
    program("bin/busybox", join(system, "usr/bin/busybox")),
    program("init", join(SYSTEMS, "arm64-init.sh")),
    program("table.sh", join(SYSTEMS, "table.sh")),
    { kind: "file", path: "modules", mode: 0o644, data: Buffer.from(order) },
    ...[...files].map(([path, data]) => ({ kind: "file", path, mode: 0o644, data }) as const),
  ];
  return Buffer.concat([cpioArchive(entries, 0), rescueArchive(tsbuse, 0, ARM64_ROOT).archive]);
}

function program(path: string, source: string): Entry {
  return { kind: "file", path, mode: 0o755, data: readFileSync(source) };
}
