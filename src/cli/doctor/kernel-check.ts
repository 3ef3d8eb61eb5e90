/** What a kernel's version says about its features. */
import { type Check, ok, warn } from "./check.ts";
import type { Facts } from "./facts.ts";

interface Feature {
  readonly since: readonly [major: number, minor: number];
  readonly what: string;
}

/** Features that Linux got after the oldest version that tsbuse supports. */
const FEATURES: readonly Feature[] = [
  { since: [5, 6], what: "protection from waiting for itself when memory runs out" },
  { since: [5, 14], what: "--populate" },
  { since: [6, 5], what: "ublk devices" },
  { since: [6, 12], what: "write zeroes and the rotational flag over NBD" },
];

export function checkKernel({ kernelRelease }: Facts): Check {
  const name = "kernel";
  const match = /^(\d+)\.(\d+)/.exec(kernelRelease);
  if (match === null) {
    return warn(name, `${kernelRelease}, of which nothing is known`, "use Linux 6.12 or newer to be sure");
  }
  const version = [Number(match[1]), Number(match[2])] as const;
  const lost = FEATURES.filter(({ since }) => isOlder(version, since));
  if (lost.length === 0) return ok(name, `Linux ${kernelRelease} has all that tsbuse can use`);
  const list = lost.map(({ what, since }) => `${what} (${since.join(".")})`).join(", ");
  const remedy = "where that matters, use the version in brackets or a newer one";
  return warn(name, `Linux ${kernelRelease} is without ${list}`, remedy);
}

function isOlder(version: Feature["since"], than: Feature["since"]): boolean {
  return version[0] < than[0] || (version[0] === than[0] && version[1] < than[1]);
}
