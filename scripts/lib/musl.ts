/**
 * A system with musl, as far as Debian's packages allow: musl itself, and Debian's C++ library, which is for glibc, on
 * top of a stand-in for the parts of glibc that it uses.
 */
import { cpSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { ensureInstalled } from "./apt.ts";
import type { Architecture } from "./architecture.ts";
import { Failure } from "./failure.ts";
import { ensureForeignRoot } from "./foreign-root.ts";
import { ROOT } from "./suites.ts";

const MUSL = {
  x64: {
    requirement: { command: "musl-gcc", package: "musl-tools" },
    compiler: "cc",
    headers: "usr/include/x86_64-linux-musl",
    // The C++ library needs a library of this name.
    standIn: "ld-linux-x86-64.so.2",
    preload: false,
  },
  arm64: {
    requirement: { command: "aarch64-linux-gnu-gcc", package: "gcc-aarch64-linux-gnu" },
    compiler: "aarch64-linux-gnu-gcc",
    headers: "usr/include/aarch64-linux-musl",
    standIn: "glibc-for-musl.so",
    preload: true,
  },
} as const;

export interface MuslSystem {
  /** Environment variables, NAME=VALUE, with which a binary for musl finds its libraries. */
  readonly variables: readonly string[];
  /** The directory that contains its loader. */
  readonly root: string;
}

/** Installs and builds what is missing. @throws Failure */
export async function muslSystem(architecture: Architecture): Promise<MuslSystem> {
  const { requirement, compiler, headers, standIn, preload } = MUSL[architecture];
  await ensureInstalled([requirement]);
  const root = architecture === process.arch ? "/" : await ensureForeignRoot(architecture);
  const directory = join(ROOT, `dist/musl-${architecture}`);
  mkdirSync(directory, { recursive: true });
  for (const name of ["libstdc++.so.6", "libgcc_s.so.1"])
    cpSync(run(compiler, `-print-file-name=${name}`).trim(), join(directory, name), { dereference: true });
  const options = ["-shared", "-fPIC", "-nostdlib", "-nostdinc", "-isystem", join(root, headers)];
  const output = [`-Wl,-soname,${standIn}`, "-o", join(directory, standIn)];
  run(compiler, ...options, ...output, join(ROOT, "scripts/systems/glibc-for-musl.c"));
  const preloaded = preload ? [`LD_PRELOAD=${join(directory, standIn)}`] : [];
  return { variables: [`LD_LIBRARY_PATH=${directory}`, ...preloaded], root };
}

/** The output of a command. */
function run(...command: string[]): string {
  const done = Bun.spawnSync(command);
  if (done.exitCode === 0) return done.stdout.toString();
  throw new Failure(`"${command.join(" ")}" failed: ${done.stderr.toString().trim()}`);
}
