/**
 * The root directory of a guest whose processor is not this machine's: what a few of Debian's packages hold, unpacked
 * and not configured, since nothing of it runs here. It is kept in the user's cache.
 */
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { $ } from "bun";
import { aptGet } from "./apt.ts";
import type { Architecture } from "./architecture.ts";
import { cacheDirectory } from "./kernel.ts";
import { FOREIGN_SUITE, packageLists } from "./kernel-package.ts";

/** What the guest's first processes run, what a command may look for, and musl; apt adds what these depend on. */
const PACKAGES = [
  "base-files",
  "bash",
  "busybox-static",
  "coreutils",
  "dash",
  "e2fsprogs",
  "findutils",
  "grep",
  "kmod",
  "libstdc++6",
  "mount",
  "musl",
  "musl-dev",
  "procps",
  "sed",
  "util-linux",
];

/** Its path. Nobody may change what is in it. @throws Failure */
export async function ensureForeignRoot(architecture: Architecture): Promise<string> {
  const cache = join(cacheDirectory(), "tsbuse", "roots");
  const name = `${FOREIGN_SUITE}-${architecture}-${Bun.hash(PACKAGES.join(" ")).toString(16)}`;
  const root = join(cache, name);
  if (existsSync(root)) return root;
  await mkdir(cache, { recursive: true });
  const temporary = await mkdtemp(join(cache, ".making-"));
  try {
    console.error(`making a small Debian for ${architecture} in ${cache}`);
    await using lists = await packageLists(FOREIGN_SUITE, temporary, architecture);
    // Nothing is installed as far as apt knows, so it fetches all that the packages depend on.
    const places = [
      `--option=Dir::State::status=${join(temporary, "status")}`,
      `--option=Dir::Cache::archives=${temporary}`,
    ];
    await Bun.write(join(temporary, "status"), "");
    await mkdir(join(temporary, "partial"));
    const mode = ["--yes", "--no-install-recommends", "--download-only", "install"];
    await aptGet([...lists.options, ...places, ...mode, ...PACKAGES]);
    await unpack(temporary);
    await rename(join(temporary, "root"), root).catch((error: unknown) => {
      // Another run was faster, and its root is as good.
      if (!existsSync(root)) throw error;
    });
    return root;
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

/** Unpacks the packages in `directory` to its "root", with the files that their scripts would have made. */
async function unpack(directory: string): Promise<void> {
  const root = join(directory, "root");
  const packages = (await readdir(directory)).filter((name) => name.endsWith(".deb"));
  // The links of / come with base-files: packages of the old layout follow them.
  const ordered = packages.toSorted((one, other) => Number(isBase(other)) - Number(isBase(one)));
  await mkdir(root);
  for (const name of ordered)
    await $`dpkg-deb --fsys-tarfile ${join(directory, name)} | tar --extract --keep-directory-symlink -C ${root}`.quiet();
  await Bun.write(join(root, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n");
  await Bun.write(join(root, "etc/group"), "root:x:0:\n");
}

function isBase(name: string): boolean {
  return name.startsWith("base-files_");
}
