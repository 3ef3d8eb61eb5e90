/**
 * The guest's kernel: Debian's cloud kernel, unpacked from its package to the user's cache. Never installed on this
 * machine.
 */
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rename, rm } from "node:fs/promises";
import { userInfo } from "node:os";
import { join } from "node:path";
import { $ } from "bun";
import { findCommand } from "./apt.ts";
import type { Architecture } from "./architecture.ts";
import { describeError, Failure } from "./failure.ts";
import { writeInitramfs } from "./initramfs.ts";
import { unwrapKernelImage } from "./kernel-image.ts";
import { downloadKernel, type KernelSeries } from "./kernel-package.ts";

/** A kernel that is ready to boot. */
export interface Kernel {
  readonly architecture: Architecture;
  /** As `uname -r` prints it in the guest. */
  readonly version: string;
  /** The image that QEMU loads. */
  readonly image: string;
  /** The directory for /lib/modules in the guest. */
  readonly modules: string;
  /** Mounts the root, for a kernel that cannot do so itself: see initramfs.ts. */
  readonly initramfs: string | undefined;
  /** A statically linked busybox for its processor. */
  readonly busybox: string;
}

/** The series of a run that names none. */
const DEFAULT_SERIES: KernelSeries = "6.12";

/** The newest kernel of a series in the cache; fetches one if there is none. */
export async function ensureKernel(
  series: KernelSeries = DEFAULT_SERIES,
  architecture: Architecture = "x64",
): Promise<Kernel> {
  const words = [architecture === "x64" ? [] : architecture, series === DEFAULT_SERIES ? [] : series].flat();
  const cache = join(cacheDirectory(), "tsbuse", ["vm", ...words].join("-"));
  const cached = await findCachedKernel(cache, architecture);
  if (cached !== undefined) return cached;
  await mkdir(cache, { recursive: true }).catch((error: unknown) => {
    throw new Failure(
      `${cache} cannot be made (${describeError(error)}): name a directory in XDG_CACHE_HOME that can be written`,
      2,
    );
  });
  return fetchKernel(cache, architecture, series);
}

/** Where caches go. In a service or a container HOME may be unset or empty; the user database still knows. */
export function cacheDirectory(): string {
  const fromXdg = process.env["XDG_CACHE_HOME"];
  if (fromXdg !== undefined && fromXdg.startsWith("/")) return fromXdg;
  return join(process.env["HOME"] || userInfo().homedir, ".cache");
}

async function findCachedKernel(cache: string, architecture: Architecture): Promise<Kernel | undefined> {
  const names = existsSync(cache) ? await readdir(cache) : [];
  // Numeric collation puts 6.12.9 before 6.12.10. A name with a leading dot is still being unpacked.
  const versions = names
    .filter((name) => !name.startsWith("."))
    .toSorted(new Intl.Collator("en", { numeric: true }).compare);
  return versions
    .map((version) => kernelAt(join(cache, version), architecture, version))
    .findLast((kernel) => existsSync(kernel.image) && existsSync(kernel.modules));
}

/** The kernel in `directory`, once unpacked there. */
function kernelAt(directory: string, architecture: Architecture, version: string): Kernel {
  const initramfs = join(directory, "initramfs");
  return {
    architecture,
    version,
    image: join(directory, "vmlinux"),
    modules: join(directory, "lib/modules"),
    initramfs: existsSync(initramfs) ? initramfs : undefined,
    busybox: architecture === "x64" ? "/bin/busybox" : join(directory, "busybox"),
  };
}

/** Unpacks beside the final place and renames, so that a kernel under its own name in the cache is complete. */
async function fetchKernel(cache: string, architecture: Architecture, series: KernelSeries): Promise<Kernel> {
  const temporary = await mkdtemp(join(cache, ".unpacking-"));
  try {
    console.error(`fetching the guest's kernel to ${cache}`);
    const version = await downloadKernel(architecture, series, temporary);
    await unpackKernelPackages(temporary, architecture, version).catch((error: unknown) => {
      throw new Failure(
        `unpacking a kernel to ${cache} failed (${describeError(error)}): check its free space`,
        2,
      );
    });
    await rename(join(temporary, "kernel"), join(cache, version)).catch((error: unknown) => {
      // Another run was faster; its kernel is just as good.
      if (!existsSync(kernelAt(join(cache, version), architecture, version).image)) throw error;
    });
    return kernelAt(join(cache, version), architecture, version);
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

/** Lays out a kernel in `directory`/kernel from the packages in `directory`. */
async function unpackKernelPackages(
  directory: string,
  architecture: Architecture,
  version: string,
): Promise<void> {
  const unpacked = join(directory, "packages");
  const place = join(directory, "kernel");
  const kernel = kernelAt(place, architecture, version);
  for (const name of await readdir(directory)) {
    if (name.endsWith(".deb")) await $`dpkg-deb --extract ${join(directory, name)} ${unpacked}`.quiet();
  }
  // Debian 13 moved the modules below /usr, and Debian 14 the image to them.
  const lib = existsSync(join(unpacked, "lib")) ? join(unpacked, "lib") : join(unpacked, "usr/lib");
  const images = [join(unpacked, "boot", `vmlinuz-${version}`), join(lib, "modules", version, "vmlinuz")];
  const image = await Bun.file(images.find((path) => existsSync(path)) ?? images.join(" or ")).bytes();
  await Bun.write(kernel.image, architecture === "x64" ? unwrapKernelImage(image) : image);
  if (architecture !== "x64") await rename(join(unpacked, "usr/bin/busybox"), kernel.busybox);
  await rename(lib, join(place, "lib"));
  // Decompresses the modules here, once, in a second: the guest would take several seconds, each time.
  await $`find ${place} -name "*.ko.xz" -print0 | xargs -0 -r -P 0 -n 32 xz --decompress`.quiet();
  await $`${findCommand("depmod") ?? "depmod"} -b ${place} ${version}`.quiet();
  await writeInitramfs(join(place, "initramfs"), kernel);
}
