/**
 * The guest's kernel: Debian's cloud kernel, taken from its package and kept in the user's cache. It is never
 * installed on this machine.
 */
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rename, rm } from "node:fs/promises";
import { userInfo } from "node:os";
import { dirname, join } from "node:path";
import { $ } from "bun";
import { aptGet, findCommand, withPackageLists } from "./apt.ts";
import { debianRelease } from "./debian.ts";
import { describeError, Failure } from "./failure.ts";
import { unwrapKernelImage } from "./kernel-image.ts";

/** A kernel that is ready to boot. */
export interface Kernel {
  /** As `uname -r` says it in the guest. */
  readonly version: string;
  /** The image that QEMU loads. */
  readonly image: string;
  /** What belongs at /lib/modules in the guest. */
  readonly modules: string;
}

/** The newest kernel in the cache; only when there is none is one fetched. */
export async function ensureKernel(): Promise<Kernel> {
  const cache = join(cacheDirectory(), "tsbuse", "vm");
  const cached = await findCachedKernel(cache);
  if (cached !== undefined) return cached;
  await mkdir(cache, { recursive: true }).catch((error: unknown) => {
    throw new Failure(
      `${cache} cannot be made (${describeError(error)}): name a directory in XDG_CACHE_HOME that can be written`,
      2,
    );
  });
  return fetchKernel(cache);
}

/** Where caches go. A service or a container may run us with HOME unset or empty; the user database still knows. */
export function cacheDirectory(): string {
  const fromXdg = process.env["XDG_CACHE_HOME"];
  if (fromXdg !== undefined && fromXdg.startsWith("/")) return fromXdg;
  return join(process.env["HOME"] || userInfo().homedir, ".cache");
}

async function findCachedKernel(cache: string): Promise<Kernel | undefined> {
  const names = existsSync(cache) ? await readdir(cache) : [];
  // Numeric collation puts 6.12.9 before 6.12.10. A name with a dot in front is being unpacked.
  const versions = names
    .filter((name) => !name.startsWith("."))
    .toSorted(new Intl.Collator("en", { numeric: true }).compare);
  return versions
    .map((version) => kernelAt(cache, version))
    .findLast((kernel) => existsSync(kernel.image) && existsSync(kernel.modules));
}

function kernelAt(cache: string, version: string): Kernel {
  const directory = join(cache, version);
  return { version, image: join(directory, "vmlinux"), modules: join(directory, "lib/modules") };
}

/** Unpacks beside the final place and renames, so that what is in the cache under its own name is complete. */
async function fetchKernel(cache: string): Promise<Kernel> {
  const temporary = await mkdtemp(join(cache, ".unpacking-"));
  try {
    console.error(`fetching the guest's kernel to ${cache}`);
    const version = await downloadKernelPackage(temporary);
    await unpackKernelPackage(temporary, version).catch((error: unknown) => {
      throw new Failure(
        `no kernel can be unpacked to ${cache} (${describeError(error)}): check its free space`,
        2,
      );
    });
    const kernel = kernelAt(cache, version);
    await rename(join(temporary, "kernel"), join(cache, version)).catch((error: unknown) => {
      // Another run was faster, and its kernel is as good.
      if (!existsSync(kernel.image)) throw error;
    });
    return kernel;
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

/** Downloads to `directory`, and returns the version as `uname -r` will say it. */
async function downloadKernelPackage(directory: string): Promise<string> {
  if (findCommand("apt-get") === null) {
    throw new Failure(
      `no kernel in ${dirname(directory)}, and no apt-get to fetch it: copy that directory from Debian`,
      2,
    );
  }
  const name = await withPackageLists(async () => {
    const current = await packageBehind(metaPackage());
    await aptGet(["download", current], directory);
    return current;
  });
  return name.replace("linux-image-", "");
}

/** Debian 12's own kernel is 6.1. Its security archive has 6.12 as well, as Debian 13 does. */
function metaPackage(): string {
  return debianRelease() === 12 ? "linux-image-6.12-cloud-amd64" : "linux-image-cloud-amd64";
}

/** The package, of one concrete version, that a meta-package stands for. */
async function packageBehind(meta: string): Promise<string> {
  const record = await $`apt-cache show --no-all-versions ${meta}`.quiet().nothrow().text();
  const name = /^Depends:.*?\b(linux-image-\d[^\s,]*-cloud-amd64)\b/m.exec(record)?.[1];
  if (name !== undefined) return name;
  throw new Failure(
    `apt knows no ${meta}: check the network, and that the package sources name Debian's archive`,
    2,
  );
}

/** Lays out `kernel/vmlinux` and `kernel/lib/modules` in `directory` from the package that lies there. */
async function unpackKernelPackage(directory: string, version: string): Promise<void> {
  const unpacked = join(directory, "package");
  const kernel = join(directory, "kernel");
  await $`dpkg-deb --extract ${await onlyPackage(directory)} ${unpacked}`.quiet();

  const image = await Bun.file(join(unpacked, "boot", `vmlinuz-${version}`)).bytes();
  await Bun.write(join(kernel, "vmlinux"), unwrapKernelImage(image));

  // Debian 13 moved the modules below /usr.
  const lib = existsSync(join(unpacked, "lib")) ? join(unpacked, "lib") : join(unpacked, "usr/lib");
  await rename(lib, join(kernel, "lib"));
  // The guest would take seconds for what takes this machine one, once.
  await $`find ${kernel} -name "*.ko.xz" -print0 | xargs -0 -r -P 0 -n 32 xz --decompress`.quiet();
  await $`${findCommand("depmod") ?? "depmod"} -b ${kernel} ${version}`.quiet();
}

async function onlyPackage(directory: string): Promise<string> {
  const names = await readdir(directory);
  return join(directory, names.find((name) => name.endsWith(".deb")) ?? "");
}
