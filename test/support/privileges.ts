/** The privileges of this process, for tests that need more than an ordinary user has. */
import { readFileSync } from "node:fs";

/** capabilities(7). */
export const CAP_NET_ADMIN = 12;
export const CAP_SYS_ADMIN = 21;
export const CAP_SYS_RESOURCE = 24;
export const CAP_MKNOD = 27;

/** File permissions do not apply to root. */
export const IS_ROOT = process.getuid?.() === 0;

export function hasCapability(number: number): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "0";
  return ((BigInt(`0x${effective}`) >> BigInt(number)) & 1n) === 1n;
}

/** "nobody", on every system. */
const NOBODY = 65_534;

/** Runs `use` as a user to whom permissions apply: root becomes another user meanwhile. */
export function asOrdinaryUser<T>(use: () => T): T {
  if (!IS_ROOT) return use();
  process.seteuid?.(NOBODY);
  try {
    return use();
  } finally {
    process.seteuid?.(0);
  }
}
