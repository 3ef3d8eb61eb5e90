/**
 * Kernels whose ublk driver is known to take the machine down, or to keep whoever asks for a device for good. All of
 * these have the change that gives memory of the queue's NUMA node to each queue, 529d4d632788, without the one that it
 * needs, 011af85ccd87: the driver looks into a map that is not there yet when a device is added.
 */
import { release } from "node:os";

interface KnownBad {
  /** Of what uname(2) calls the release. */
  readonly releases: RegExp;
  /** Where it was reported. */
  readonly source: string;
}

const KNOWN_BAD: readonly KnownBad[] = [
  { releases: /^6\.18\.[45](?!\d)/, source: "https://github.com/kvcache-ai/AgentENV/issues/20" },
  // 1015 and 1018 were reported.
  { releases: /^6\.17\.0-101[5-8]-azure/, source: "https://github.com/actions/runner-images/issues/14175" },
  // All of them, it says there; 1017 is also in https://github.com/longhorn/longhorn/issues/13509.
  { releases: /^6\.17\.0-\d+-aws/, source: "https://github.com/ubicloud/ubiblk/pull/480" },
];

/** What is wrong with this kernel's driver, and where to read about it; undefined when nothing is known. */
export function whyBadDriver(kernel = release()): string | undefined {
  const found = KNOWN_BAD.find(({ releases }) => releases.test(kernel));
  if (found === undefined) return undefined;
  return `the ublk driver of Linux ${kernel} is known to crash when a device is made (${found.source})`;
}
