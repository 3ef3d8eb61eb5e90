/** README, the pages, and the commands in their blocks. */
import { readFileSync } from "node:fs";
import { join } from "node:path";

export const ROOT = join(import.meta.dir, "../..");

export function readPage(page: string): string {
  return readFileSync(join(ROOT, page), "utf8");
}

/** The text of the first device in README. */
export function countingDevice(): string {
  const example = /^ {4}\/\/ counting\.ts[\s\S]*?^ {4}export default device;$/m.exec(readPage("README.md"));
  return (example?.[0] ?? "").replaceAll(/^ {4}/gm, "");
}

const PROGRAMS = String.raw`tsbuse [a-z]|\./scripts/|bun run|truncate|cp|cat|mkfs|mke2fs|mount|systemctl|qemu-img|sha256sum|install|kill|export AWS`;
const COMMAND = new RegExp(String.raw`^ {4}((?:sudo (?:-E )?)?(?:${PROGRAMS}).*?)(?: {2,}.*| &)?$`, "gm");
/** A synopsis such as `tsbuse resize TARGET [SIZE]` is not a command. */
const SYNOPSIS = /TARGET|DEVICE\b(?!')/;

/** The commands in the page's blocks as root types them: without sudo and comments. */
export function commandsIn(page: string): string[] {
  const typed = [...readPage(page).matchAll(COMMAND)].map(([, command = ""]) => asRoot(command));
  return typed.filter((command) => command.includes("$TSBUSE_DEVICE") || !SYNOPSIS.test(command));
}

export function asRoot(command: string): string {
  return command.replaceAll(/\bsudo (?:-E )?/g, "");
}
