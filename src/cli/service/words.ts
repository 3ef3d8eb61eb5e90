/** The command line of a service: independent of the working directory, and fit for later starts. */
import { resolve } from "node:path";
import { parseRemote } from "../../nbd/client/remote.ts";
import { nodeName } from "../../nbd/node/driver.ts";
import { isServerTarget } from "../../nbd/server/target.ts";
import { isUblkTarget, ublkTarget } from "../../ublk/nodes.ts";
import type { Command } from "../command.ts";
import { COMMANDS, isCommandName } from "../commands.ts";
import { checkArguments } from "../options/strict.ts";
import { tokensOf } from "../options/words.ts";
import { UsageError } from "../usage-error.ts";
import type { ServicePlan } from "./unit.ts";

/** Options that make no sense in a service, and why. */
const REFUSED: Readonly<Record<string, string>> = {
  daemon: "systemd runs a service in the background",
  initrd: "a service is no part of an initramfs",
  resume: "--recover does that",
  run: "it serves until it is stopped",
  "take-over": "its device is served by no other",
};
/** Devices whose first argument is a file name. */
const OF_FILES: ReadonlySet<string> = new Set(["loop", "run"]);
/** File names in the options of a layer. */
const LAYER_FILES = /([:,](?:file|trigger)=)([^,]+)/g;
const UNIX = "unix:";

/** @param words DEVICE, its arguments, and TARGET. @throws UsageError, UserError */
export async function planWords(
  words: readonly string[],
): Promise<Pick<ServicePlan, "words" | "target" | "files">> {
  const [device, ...rest] = words;
  if (device === undefined)
    throw new UsageError("an argument is missing: tsbuse install-service takes NAME -- DEVICE TARGET");
  if (!isCommandName(device)) throw new UsageError(`unknown device "${device}": see "tsbuse --help"`);
  const command = await COMMANDS[device]();
  if (command.text.kind !== "device")
    throw new UsageError(`"${device}" is not a device: see "tsbuse --help"`);
  checkArguments(command, rest);
  const files: string[] = [];
  const full = (path: string): string => {
    files.push(resolve(path));
    return resolve(path);
  };
  const made = withFullOptions(command, rest, full);
  const positionals = positionalIndexes(command, rest);
  // checkArguments has checked their number.
  const [first = 0, last = 0] = [positionals.at(0), positionals.at(-1)];
  if (OF_FILES.has(device)) made[first] = full(made[first] ?? "");
  // A server's socket may be named relative to this directory.
  if (device === "nbd") made[first] = parseRemote(made[first] ?? "").uri;
  const target = fixedTarget(made[last] ?? "");
  made[last] = target;
  return { words: [device, ...made], target, files };
}

/** @param full makes the name of a file that the device needs absolute. */
function withFullOptions(
  command: Command,
  words: readonly string[],
  full: (path: string) => string,
): string[] {
  const made = [...words];
  for (const token of tokensOf(command.args, words)) {
    if (token.kind !== "option") continue;
    const why = REFUSED[token.name];
    if (why !== undefined)
      throw new UsageError(`${token.rawName} is not for a service, ${why}: leave it out`);
    const { value } = token;
    if (value === undefined) continue;
    const layer = value.replaceAll(LAYER_FILES, (_, key: string, path: string) => key + full(path));
    const better = token.name === "layer" ? layer : token.name === "pid-file" ? resolve(value) : value;
    if (token.inlineValue) made[token.index] = `${token.rawName}=${better}`;
    else made[token.index + 1] = better;
  }
  return made;
}

/** Positional arguments before a `--`: the words of a module follow it. */
function positionalIndexes(command: Command, words: readonly string[]): number[] {
  const end = words.includes("--") ? words.indexOf("--") : words.length;
  return tokensOf(command.args, words)
    .filter(({ kind, index }) => kind === "positional" && index < end)
    .map(({ index }) => index);
}

/** @throws UserError, UsageError */
function fixedTarget(target: string): string {
  if (["auto", "nbd", "ublk"].includes(target))
    throw new UsageError(
      `"${target}" may be another node each time: give one with a number, such as /dev/ublkb0`,
    );
  if (target.startsWith(UNIX)) return UNIX + resolve(target.slice(UNIX.length));
  if (isServerTarget(target)) return target;
  if (isUblkTarget(target)) ublkTarget(target);
  else nodeName(target);
  return target;
}
