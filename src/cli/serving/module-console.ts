/**
 * Sends what a module prints with `console` to where all messages go. The runtime would write it to stdout, which is
 * for results, or to stderr, and wait for the reader; in a daemon it would be lost.
 */
import { Console } from "node:console";
import { Writable } from "node:stream";
import { format } from "node:util";
import { report } from "../log.ts";

/** Methods that print, and methods that affect what is printed. */
const PRINTING = ["assert", "debug", "dir", "dirxml", "error", "info", "log", "table", "warn"] as const;
const COUNTING = ["count", "countReset", "time", "timeEnd", "timeLog"] as const;
const GROUPING = ["group", "groupCollapsed", "groupEnd"] as const;

/** Call before the module is loaded. */
export function takeConsole(): void {
  const messages = new Writable({
    decodeStrings: false,
    write: (text, _encoding, done) => {
      report(String(text).replace(/\n$/, ""));
      done();
    },
  });
  const taken = new Console(messages);
  for (const name of [...PRINTING, ...COUNTING, ...GROUPING]) Object.assign(console, { [name]: taken[name] });
  // With a stream, the runtime's `trace` omits the words, and `write` goes to stdout.
  Object.assign(console, { trace: print, write: print });
}

function print(...values: readonly unknown[]): void {
  report(format(...values));
}
