/** Whether ublk can attach devices, and whether some were left behind. */
import type { ModulePlan } from "../../kmod/plan.ts";
import { whyBadDriver } from "../../ublk/known-bad.ts";
import { shellWord } from "../text.ts";
import { type Check, ok, warn } from "./check.ts";
import type { Facts } from "./facts.ts";

export interface UblkFacts {
  /** How attaching would load the driver. */
  readonly plan: ModulePlan;
  /** Why io_uring is unavailable, with the remedy. */
  readonly noRing: string | undefined;
  /** Why it is unknown which devices have a server, with the remedy. */
  readonly unknown: string | undefined;
  /** Paths of devices without a server. */
  readonly leftBehind: readonly string[];
  /** Paths of devices that wait for their next server. */
  readonly waiting: readonly string[];
}

/** Never a failure: without ublk there is still NBD. */
export function checkUblk({ kernelRelease, ublk: { plan, noRing } }: Facts): Check {
  const name = "ublk";
  const bad = whyBadDriver(kernelRelease);
  if (bad !== undefined) return warn(name, bad, "use another kernel, or NBD nodes, as auto does here");
  if (noRing !== undefined) {
    const [finding, remedy] = splitMessage(noRing);
    return warn(name, `cannot be used, ${finding}`, remedy);
  }
  switch (plan.way) {
    case "loaded":
      return ok(name, plan.builtIn ? "built into the kernel" : "loaded");
    case "modprobe":
      return ok(name, `not loaded yet: attaching a device loads it with ${plan.program}`);
    case "files":
      return ok(name, `not loaded yet: attaching a device loads ${plan.files.join(", then ")}`);
    case "hidden":
      return warn(name, "built into the kernel, but /sys does not show it", "see that /sys is mounted");
    case "none":
      return warn(
        name,
        `not loaded, and ${plan.cause}`,
        "use NBD nodes, or Linux 6.5 or newer with ublk_drv",
      );
  }
}

/** Splits a message into cause and remedy. */
function splitMessage(message: string): [cause: string, remedy: string] {
  const at = message.indexOf(": ");
  return at < 0 ? [message, 'see "dmesg"'] : [message.slice(0, at), message.slice(at + 2)];
}

export function checkUblkLeftBehind({ ublk: { leftBehind, waiting, unknown } }: Facts): Check {
  const name = "ublk-left-behind";
  if (unknown !== undefined) {
    const [cause, remedy] = splitMessage(unknown);
    return warn(name, `not known, ${cause}`, remedy);
  }
  if (leftBehind.length + waiting.length === 0) return ok(name, "no ublk device without a server");
  const finding = [
    ...(leftBehind.length > 0 ? [`${leftBehind.join(", ")}: the server is gone`] : []),
    ...(waiting.length > 0 ? [`${waiting.join(", ")}: waiting for another server`] : []),
  ].join("; ");
  const remedies = [
    ...leftBehind.map((path) => `"tsbuse disconnect ${shellWord(path)}"`),
    ...waiting.map((path) => `"tsbuse recover ${shellWord(path)} …"`),
  ];
  return warn(name, finding, `run ${remedies.join(", ")}`);
}
