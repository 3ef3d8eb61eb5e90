/**
 * Finds and downloads the guests' kernels in Debian's archive.
 */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { $ } from "bun";
import { aptGet, findCommand, withPackageLists } from "./apt.ts";
import { ARCHITECTURES, type Architecture } from "./architecture.ts";
import { archiveInUse, debianRelease } from "./debian.ts";
import { Failure } from "./failure.ts";

/**
 * The kernels that a guest can run, by its processor: the oldest that docs/operations.md names, the one that most tests
 * run on, the newest that Debian packages, and one with pages of 16 KiB.
 */
export const KERNEL_SERIES = { x64: ["6.1", "6.12", "newest"], arm64: ["6.12", "6.12-16k"] } as const;
export type KernelSeries = (typeof KERNEL_SERIES)[Architecture][number];

/** Where to find a series: the metapackage for its newest version, in a suite of Debian or in this machine's own. */
interface Source {
  readonly meta: string;
  readonly suite: string | undefined;
}

/** The packages into which newer releases split a kernel. */
const PARTS = /\blinux-(?:image|base|binary|modules)-\d[^\s,]*-(?:cloud-amd64|cloud-arm64|arm64-16k)\b/g;

/**
 * Downloads the packages of a kernel to `directory`, and busybox, too, for a processor other than ours.
 * @returns the version as `uname -r` will print it.
 * @throws Failure
 */
export async function downloadKernel(
  architecture: Architecture,
  series: KernelSeries,
  directory: string,
): Promise<string> {
  if (findCommand("apt-get") === null)
    throw new Failure("apt-get, which fetches the guest's kernel, is missing: copy the cache of a Debian", 2);
  const { meta, suite } = sourceOf(architecture, series);
  await using lists = suite === undefined ? undefined : await packageLists(suite, directory, architecture);
  const busybox = architecture === "x64" ? [] : ["busybox-static"];
  const options = lists?.options ?? [];
  const download = async (): Promise<string> => {
    const image = (await partsOf(meta, options)).find((name) => name.startsWith("linux-image-"));
    if (image === undefined) throw new Failure(`apt knows no ${meta}: ${SOURCES_REMEDY}`, 2);
    const rest = (await partsOf(image, options)).filter((name) => name !== image);
    await aptGet([...options, "download", image, ...rest, ...busybox], directory);
    return image;
  };
  // Our own lists are fresh.
  const image = lists === undefined ? await withPackageLists(download) : await download();
  return image.replace("linux-image-", "");
}

const SOURCES_REMEDY = "check the network, and that the package sources name Debian's archive";

/** The release of Debian whose packages for other processors a guest gets: its own kernel is 6.12. */
export const FOREIGN_SUITE = "trixie";

/** Debian 12 comes with 6.1, and its security archive has 6.12; Debian 13 comes with 6.12. */
function sourceOf(architecture: Architecture, series: KernelSeries): Source {
  const own = `linux-image-cloud-${ARCHITECTURES[architecture].debian}`;
  switch (series) {
    case "6.1":
      return { meta: own, suite: "bookworm" };
    case "6.12":
      if (architecture !== "x64") return { meta: own, suite: FOREIGN_SUITE };
      return { meta: debianRelease() === 12 ? "linux-image-6.12-cloud-amd64" : own, suite: undefined };
    case "6.12-16k":
      return { meta: "linux-image-arm64-16k", suite: FOREIGN_SUITE };
    case "newest":
      return { meta: own, suite: "trixie-backports" };
  }
}

/** The packages, each of a particular version, that a metapackage depends on. */
async function partsOf(name: string, options: readonly string[]): Promise<string[]> {
  const record = await $`apt-cache ${options} show --no-all-versions ${name}`.quiet().nothrow().text();
  const parts = /^Depends:.*$/m.exec(record)?.[0].match(PARTS) ?? [];
  return [...new Set(parts)].toSorted();
}

/** Fetches the lists of a suite that this machine may not use to a place of their own. Returns options for apt. */
export async function packageLists(suite: string, directory: string, architecture: Architecture) {
  const place = join(directory, ".apt");
  const { archive } = await archiveInUse();
  const { debian } = ARCHITECTURES[architecture];
  await mkdir(join(place, "lists/partial"), { recursive: true });
  const keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
  await Bun.write(join(place, "sources.list"), `deb [signed-by=${keys}] ${archive} ${suite} main\n`);
  const options = [
    `--option=Dir::Etc::sourcelist=${join(place, "sources.list")}`,
    "--option=Dir::Etc::sourceparts=/dev/null",
    `--option=Dir::State::lists=${join(place, "lists")}`,
    "--option=Dir::Cache::pkgcache=",
    "--option=Dir::Cache::srcpkgcache=",
    `--option=APT::Architecture=${debian}`,
    `--option=APT::Architectures=${debian}`,
  ];
  await aptGet([...options, "update"]);
  return { options, [Symbol.asyncDispose]: () => rm(place, { recursive: true, force: true }) };
}
