/**
 * Kernels whose ublk driver is known to take the machine down, or to hang any process that adds a device. All of these
 * have the change that allocates each queue on its NUMA node, 529d4d632788, without the change that it requires,
 * 011af85ccd87: when a device is added, the driver uses a map that does not exist yet.
 */
import { release } from "node:os";

interface KnownBad {
  /** Matches the release, as uname(2) calls it. */
  readonly releases: RegExp;
  /** Where it was reported. */
  readonly source: string;
}

const KNOWN_BAD: readonly KnownBad[] = [
  { releases: /^6\.18\.[45](?!\d)/, source: "https://github.com/kvcache-ai/AgentENV/issues/20" },
  // 1015 and 1018 have been reported.
  { releases: /^6\.17\.0-101[5-8]-azure/, source: "https://github.com/actions/runner-images/issues/14175" },
  // All of them, according to the source; 1017 is also in https://github.com/longhorn/longhorn/issues/13509.
  { releases: /^6\.17\.0-\d+-aws/, source: "https://github.com/ubicloud/ubiblk/pull/480" },
];

/** The fault of this kernel's driver and where it was reported; undefined if none is known. */
export function whyBadDriver(kernel = release()): string | undefined {
  const found = KNOWN_BAD.find(({ releases }) => releases.test(kernel));
  if (found === undefined) return undefined;
  return `the ublk driver of Linux ${kernel} is known to crash when a device is made (${found.source})`;
}
