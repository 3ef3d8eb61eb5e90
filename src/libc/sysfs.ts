/** The kernel's attributes as files in /sys and /proc, also after switch_root(8). */
import { readdirSync, readFileSync } from "node:fs";
import { inCurrentRoot } from "./root.ts";

/** The text of an attribute without its last newline; undefined if it is absent. */
export function readAttribute(path: string): string | undefined {
  try {
    return readFileSync(inCurrentRoot(path), "utf8").trimEnd();
  } catch {
    // An absent attribute, or one that went away with its device or process, is a regular answer here.
    return undefined;
  }
}

/** The names in a directory; none if it is absent, or went away with its device. */
export function attributeNames(directory: string): string[] {
  try {
    return readdirSync(inCurrentRoot(directory));
  } catch {
    return [];
  }
}

/** A numeric attribute; undefined if it is absent. */
export function readNumber(path: string): number | undefined {
  const text = readAttribute(path);
  return text === undefined ? undefined : Number(text);
}

/** Decodes a field of mountinfo, where `\040` stands for a space, for example. */
export function unescapeOctal(field: string): string {
  return field.replaceAll(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

/** major(3) and minor(3) of a device number as stat(2) gives it. */
export function deviceNumbers(device: number): { readonly major: number; readonly minor: number } {
  const number = BigInt(device);
  const major = ((number >> 8n) & 0xfffn) | ((number >> 32n) & 0xfffff000n);
  const minor = (number & 0xffn) | ((number >> 12n) & 0xffffff00n);
  return { major: Number(major), minor: Number(minor) };
}
