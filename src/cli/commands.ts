/** Every command, in the order of the help. Each is loaded when it is needed. */
import type { Command } from "./command.ts";

export const COMMANDS = {
  ramdisk: async () => (await import("./commands/ramdisk.ts")).default,
  loop: async () => (await import("./commands/loop.ts")).default,
  nbd: async () => (await import("./commands/nbd.ts")).default,
  bucket: async () => (await import("./commands/bucket.ts")).default,
  deadbeef: async () => (await import("./commands/deadbeef.ts")).default,
  run: async () => (await import("./commands/run.ts")).default,
  new: async () => (await import("./commands/new.ts")).default,
  top: async () => (await import("./commands/top.ts")).default,
  list: async () => (await import("./commands/list.ts")).default,
  "bucket-snapshot": async () => (await import("./commands/bucket-snapshot.ts")).default,
  "bucket-clone": async () => (await import("./commands/bucket-clone.ts")).default,
  "bucket-list": async () => (await import("./commands/bucket-list.ts")).default,
  "bucket-clean": async () => (await import("./commands/bucket-clean.ts")).default,
  check: async () => (await import("./commands/check.ts")).default,
  mark: async () => (await import("./commands/mark.ts")).default,
  trace: async () => (await import("./commands/trace.ts")).default,
  replay: async () => (await import("./commands/replay.ts")).default,
  crash: async () => (await import("./commands/crash.ts")).default,
  resize: async () => (await import("./commands/resize.ts")).default,
  recover: async () => (await import("./commands/recover.ts")).default,
  handover: async () => (await import("./commands/handover.ts")).default,
  disconnect: async () => (await import("./commands/disconnect.ts")).default,
  doctor: async () => (await import("./commands/doctor.ts")).default,
  "install-initramfs": async () => (await import("./commands/install-initramfs.ts")).default,
  "install-service": async () => (await import("./commands/install-service.ts")).default,
  completions: async () => (await import("./commands/completions.ts")).default,
  man: async () => (await import("./commands/man.ts")).default,
} as const satisfies Record<string, () => Promise<Command>>;

export type CommandName = keyof typeof COMMANDS;

export function isCommandName(name: string): name is CommandName {
  return Object.hasOwn(COMMANDS, name);
}

/** All commands, for the help, the completions and the man page. */
export function allCommands(): Promise<Command[]> {
  return Promise.all(Object.values(COMMANDS).map((load) => load()));
}
