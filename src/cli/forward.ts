/** Commands that take the words of a device command, but the target first. */
import { COMMANDS, isCommandName } from "./commands.ts";
import { checkArguments } from "./options/strict.ts";
import { splitAtRest } from "./options/words.ts";
import { UsageError } from "./usage-error.ts";

/**
 * Runs `NAME TARGET DEVICE [its arguments]` as the device command, with another flag. @throws UsageError
 * @param name of the command that was typed.
 */
export async function forwardTo(name: string, words: readonly string[], flag: string): Promise<number> {
  const [target, device, ...rest] = words;
  if (target === undefined || device === undefined || target.startsWith("-"))
    throw new UsageError(`an argument is missing: tsbuse ${name} takes TARGET DEVICE [its arguments]`);
  if (!isCommandName(device)) throw new UsageError(`unknown device "${device}": see "tsbuse --help"`);
  const command = await COMMANDS[device]();
  if (command.text.kind !== "device")
    throw new UsageError(`"${device}" is not a device: see "tsbuse --help"`);
  const forwarded = insertTarget(rest, target, flag);
  checkArguments(command, forwarded);
  return command.execute(forwarded);
}

/** Puts the target last, but before the words for a module. */
function insertTarget(words: readonly string[], target: string, flag: string): string[] {
  const { own, rest } = splitAtRest(words);
  return [...own, target, flag, ...rest];
}
