/**
 * The root directory of a guest whose processor differs from this machine's: a few of Debian's packages, unpacked but
 * not configured, since their programs do not run here. It is kept in the user's cache.
 */
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { $ } from "bun";
import { aptGet } from "./apt.ts";
import type { Architecture } from "./architecture.ts";
import { cacheDirectory } from "./kernel.ts";
import { FOREIGN_SUITE, packageLists } from "./kernel-package.ts";

/** For the guest's first processes and for commands, and musl; apt adds the dependencies. */
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

/** Returns its path. Never change the directory. @throws Failure */
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
    // An empty status file: apt believes that nothing is installed, and fetches every dependency.
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
      // Another run was faster; its root is just as good.
      if (!existsSync(root)) throw error;
    });
    return root;
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

/** Unpacks the packages in `directory` to its "root", and makes the files that their scripts would make. */
async function unpack(directory: string): Promise<void> {
  const root = join(directory, "root");
  const packages = (await readdir(directory)).filter((name) => name.endsWith(".deb"));
  // First base-files, which has the symbolic links in /: packages of the old layout rely on them.
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
