/**
 * An archive that can be appended to any initramfs, with everything that a system without a C library needs to run
 * tsbuse.
 *
 * The program, its loader and its libraries are in a directory of their own and refer to each other by its path. So
 * they neither need nor replace a C library in the image, which would be of another version.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { ensureInstalled } from "./apt.ts";
import type { Architecture } from "./architecture.ts";
import { cpioArchive, type Entry } from "./cpio.ts";
import { librariesNeededBy, loaderOf, withLoader } from "./elf.ts";
import { Failure } from "./failure.ts";

/** Where the files are in the image, without the leading slash. */
const DIRECTORY = "usr/lib/tsbuse";
const LOADER = `${DIRECTORY}/ld.so`;

/**
 * Its window is 8 MiB, and the kernel takes that much memory for unpacking. Level 22 would take 128 MiB, more than a
 * small machine has free, to make the file three percent smaller.
 */
const ZSTD_LEVEL = 19;

/** The binaries with an archive in a release: each brings its own glibc, so it suits images with musl as well. */
export const RESCUE_TARGETS = [
  { target: "linux-x64", architecture: "x64" },
  { target: "linux-x64-baseline", architecture: "x64" },
  { target: "linux-arm64", architecture: "arm64" },
] as const satisfies readonly { readonly target: string; readonly architecture: Architecture }[];

/** glibc and its loader for another processor: packages for cross compilers, which install on any machine. */
const CROSS = {
  x64: { root: "/usr/x86_64-linux-gnu", library: "lib/libc.so.6", package: "libc6-amd64-cross" },
  arm64: { root: "/usr/aarch64-linux-gnu", library: "lib/libc.so.6", package: "libc6-arm64-cross" },
} as const;

/** The `root` of rescueArchive for a processor; undefined for this machine's own. @throws Failure */
export async function libraryRoot(architecture: Architecture): Promise<string | undefined> {
  if (architecture === process.arch) return undefined;
  const { root, library, package: name } = CROSS[architecture];
  await ensureInstalled([{ file: join(root, library), package: name }]);
  return root;
}

export interface RescueArchive {
  readonly archive: Uint8Array<ArrayBuffer>;
  /** The lengths of its files, in bytes. */
  readonly files: readonly number[];
}

/**
 * The archive of the program at `path`. @throws Failure if the program or a library is missing.
 * @param root of the system that provides its loader and libraries, in one directory; absent: this system.
 */
export function rescueArchive(path: string, mtime: number, root?: string): RescueArchive {
  if (!existsSync(path)) throw new Failure(`${path} does not exist: run "bun run build"`, 2);
  const image = readFileSync(path);
  const loader = `${root ?? ""}${loaderOf(image)}`;
  if (!existsSync(loader)) throw new Failure(`${loader} does not exist: ${path} is for another system`, 2);
  const found = root === undefined ? librariesOf(path, loader) : librariesBeside(loader, image);
  const libraries = found.map(([name, library]) => [`${DIRECTORY}/${name}`, library] as const);
  const files = new Map<string, Uint8Array>([
    [LOADER, readFileSync(loader)],
    [`${DIRECTORY}/tsbuse`, withLoader(image, `/${LOADER}`, `/${DIRECTORY}`)],
    ...libraries.map(([name, library]) => [name, readFileSync(library)] as const),
  ]);
  const entries: Entry[] = [
    ...["usr", "usr/bin", "usr/lib", DIRECTORY].map(
      (directory) => ({ kind: "directory", path: directory }) as const,
    ),
    { kind: "symlink", path: "usr/bin/tsbuse", target: `/${DIRECTORY}/tsbuse` },
    ...[...files].map(([name, data]) => ({ kind: "file", path: name, mode: 0o755, data }) as const),
  ];
  return {
    archive: cpioArchive(entries.toSorted(byPath), mtime),
    files: [...files.values()].map(({ length }) => length),
  };
}

/** The archive for a small image. Takes a minute. */
export function compressed(archive: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  return Bun.zstdCompress(archive, { level: ZSTD_LEVEL });
}

/** Name and path of each library that the program loads, as the loader itself reports them. */
function librariesOf(path: string, loader: string): readonly (readonly [name: string, place: string])[] {
  const listing = Bun.spawnSync([loader, "--list", path]);
  if (listing.exitCode !== 0) {
    throw new Failure(
      `${loader} cannot tell what ${path} needs: build it for this machine with "bun run build"`,
    );
  }
  const lines = [...listing.stdout.toString().matchAll(/^\s*(\S+) => (.*?)(?: \(0x[0-9a-f]+\))?$/gm)];
  return lines.map(([, name = "", place = ""]) => {
    if (!place.startsWith("/"))
      throw new Failure(`the library ${name} is missing: install what ${path} needs`);
    return [name, place];
  });
}

/** The same for a program that does not run here: the libraries it needs, and what they need, beside the loader. */
function librariesBeside(
  loader: string,
  image: Uint8Array,
): readonly (readonly [name: string, place: string])[] {
  const places = new Map<string, string>();
  const waiting = [...librariesNeededBy(image)];
  for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
    const place = join(loader, "..", name);
    // Every library needs the loader, which the archive has under a name of its own.
    if (places.has(name) || place === loader) continue;
    if (!existsSync(place)) throw new Failure(`${place} does not exist: install what the program needs`, 2);
    places.set(name, place);
    waiting.push(...librariesNeededBy(readFileSync(place)));
  }
  return [...places];
}

/** Sorts a directory before its contents. Not by the rules of a locale, which differ between machines. */
function byPath(one: Entry, other: Entry): number {
  if (one.path === other.path) return 0;
  return one.path < other.path ? -1 : 1;
}
