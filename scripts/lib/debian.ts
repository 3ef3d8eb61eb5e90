/**
 * Which Debian this is.
 */
import { existsSync, readFileSync } from "node:fs";

/** 12 for Debian 12, and so on; undefined for testing, which has no number, and for other systems. */
export function debianRelease(): number | undefined {
  const path = "/etc/os-release";
  const text = existsSync(path) ? readFileSync(path, "utf8") : "";
  const number = /^ID=debian$/m.test(text) ? /^VERSION_ID="?(\d+)/m.exec(text)?.[1] : undefined;
  return number === undefined ? undefined : Number(number);
}
