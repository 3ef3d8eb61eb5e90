/**
 * The only place in the project that opens a library. It tries the names of the C library under glibc and musl, and
 * uses the first that loads, for every thread of the process.
 */
import { dlopen, type FFIFunction } from "bun:ffi";
import { symbols, systemCalls } from "./symbols.ts";

const MUSL_ARCHITECTURE = process.arch === "arm64" ? "aarch64" : "x86_64";
const NAMES = ["libc.so.6", `libc.musl-${MUSL_ARCHITECTURE}.so.1`];

function load() {
  const failures: string[] = [];
  for (const name of NAMES) {
    try {
      return { ...dlopen(name, symbols).symbols, ...bindSystemCalls(name) };
    } catch (error) {
      failures.push(error instanceof Error ? error.message : String(error));
    }
  }
  throw new Error(`no C library could be loaded: ${failures.join("; ")}`);
}

/** A table binds each name once, but syscall(2) is needed with several argument lists. */
function bindSystemCalls(name: string) {
  const bind = <const T extends FFIFunction>(definition: T) =>
    dlopen(name, { syscall: definition }).symbols.syscall;
  return {
    mknodat: bind(systemCalls.mknodat),
    preadv2: bind(systemCalls.preadv2),
    pwritev2: bind(systemCalls.pwritev2),
    finit_module: bind(systemCalls.finit_module),
    init_module: bind(systemCalls.init_module),
    sched_setscheduler: bind(systemCalls.sched_setscheduler),
    memfd_create: bind(systemCalls.memfd_create),
    pidfd_send_signal: bind(systemCalls.pidfd_send_signal),
    pidfd_open: bind(systemCalls.pidfd_open),
    pidfd_getfd: bind(systemCalls.pidfd_getfd),
    io_uring_setup: bind(systemCalls.io_uring_setup),
    io_uring_enter: bind(systemCalls.io_uring_enter),
    io_uring_register: bind(systemCalls.io_uring_register),
  };
}

export const libc = load();
