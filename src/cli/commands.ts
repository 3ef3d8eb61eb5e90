/** Every command, in the order in which the help lists them; each is loaded when it is asked for. */
import type { Command } from "./command.ts";

export const COMMANDS = {
  ramdisk: async () => (await import("./ramdisk.ts")).default,
  loop: async () => (await import("./loop.ts")).default,
  deadbeef: async () => (await import("./deadbeef.ts")).default,
  run: async () => (await import("./run.ts")).default,
  new: async () => (await import("./new.ts")).default,
  list: async () => (await import("./list.ts")).default,
  check: async () => (await import("./check.ts")).default,
  recover: async () => (await import("./recover.ts")).default,
  disconnect: async () => (await import("./disconnect.ts")).default,
  doctor: async () => (await import("./doctor.ts")).default,
  "install-initramfs": async () => (await import("./install-initramfs.ts")).default,
  completions: async () => (await import("./completions.ts")).default,
  man: async () => (await import("./man.ts")).default,
} as const satisfies Record<string, () => Promise<Command>>;

export type CommandName = keyof typeof COMMANDS;

export function isCommandName(name: string): name is CommandName {
  return Object.hasOwn(COMMANDS, name);
}

/** All of them, for the help, the completions and the man page. */
export function allCommands(): Promise<Command[]> {
  return Promise.all(Object.values(COMMANDS).map((load) => load()));
}
