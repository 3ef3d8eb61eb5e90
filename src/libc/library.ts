/**
 * The one dlopen of the project. The C library is asked for by the names it has under glibc and under musl; the
 * first that loads is used, for every thread of the process.
 */
import { dlopen } from "bun:ffi";
import { symbols } from "./symbols.ts";

const MUSL_ARCHITECTURE = process.arch === "arm64" ? "aarch64" : "x86_64";
const NAMES = ["libc.so.6", `libc.musl-${MUSL_ARCHITECTURE}.so.1`];

function load() {
  const failures: string[] = [];
  for (const name of NAMES) {
    try {
      return dlopen(name, symbols).symbols;
    } catch (error) {
      failures.push(error instanceof Error ? error.message : String(error));
    }
  }
  throw new Error(`no C library could be loaded: ${failures.join("; ")}`);
}

export const libc = load();
