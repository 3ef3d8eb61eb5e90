/**
 * The root directory of a small Debian. Made with debootstrap from the archive that this machine uses, and kept in the
 * user's cache.
 */
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { $ } from "bun";
import { ensureInstalled } from "./apt.ts";
import { archiveInUse } from "./debian.ts";
import { describeError, Failure } from "./failure.ts";
import { cacheDirectory } from "./kernel.ts";

/** Both builders of an initramfs, and what they use if present: strip for dracut, systemd for its image. */
const PACKAGES = [
  "binutils",
  "dracut-core",
  "e2fsprogs",
  "initramfs-tools",
  "kmod",
  "systemd",
  "systemd-sysv",
  "udev",
  "xz-utils",
  "zstd",
];

/** Returns its path. Never change the directory: copy it. @throws Failure */
export async function ensureDebianRoot(): Promise<string> {
  const { archive, suite } = await archiveInUse();
  const cache = join(cacheDirectory(), "tsbuse", "roots");
  const root = join(cache, `${suite}-${Bun.hash(PACKAGES.join(" ")).toString(16)}`);
  if (existsSync(root)) return root;
  await ensureInstalled([{ command: "debootstrap", package: "debootstrap" }]);
  await mkdir(cache, { recursive: true });
  const temporary = await mkdtemp(join(cache, ".making-"));
  try {
    console.error(`making a small Debian in ${cache}`);
    const options = ["--variant=minbase", `--include=${PACKAGES.join(",")}`];
    await $`debootstrap ${options} ${suite} ${join(temporary, "root")} ${archive}`.quiet();
    await rename(join(temporary, "root"), root);
    return root;
  } catch (error) {
    // Another run was faster; its root is just as good.
    if (existsSync(root)) return root;
    throw new Failure(
      `debootstrap of ${suite} failed (${describeError(error)}): check the network and ${cache}`,
      2,
    );
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}
