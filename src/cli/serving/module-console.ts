/**
 * What a module prints with `console` goes where all messages go. The runtime would write it to stdout, which has
 * results alone, or to stderr, and wait for whoever reads them; in a daemon it would be lost.
 */
import { format } from "node:util";
import { report } from "../log.ts";

const METHODS = ["debug", "error", "info", "log", "trace", "warn"] as const;

/** To be called before the module is loaded. */
export function takeConsole(): void {
  for (const method of METHODS) console[method] = print;
}

function print(...values: readonly unknown[]): void {
  report(format(...values));
}
