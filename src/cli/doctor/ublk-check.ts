/** Whether devices can be attached by ublk, and whether some were left behind. */
import type { ModulePlan } from "../../kmod/plan.ts";
import { shellWord } from "../text.ts";
import { type Check, ok, warn } from "./check.ts";
import type { Facts } from "./facts.ts";

export interface UblkFacts {
  /** What attaching would do for the driver. */
  readonly plan: ModulePlan;
  /** sysctl kernel.io_uring_disabled: 2 for everybody, 1 for those without CAP_SYS_ADMIN. */
  readonly ioUringDisabled: number | undefined;
  /** Paths of devices without a server. */
  readonly leftBehind: readonly string[];
  /** Paths of devices that wait for another server. */
  readonly waiting: readonly string[];
}

const IO_URING_OFF = 2;

/** Without ublk there is still NBD: nothing here is a failure. */
export function checkUblk({ ublk: { plan, ioUringDisabled } }: Facts): Check {
  const name = "ublk";
  if (ioUringDisabled === IO_URING_OFF) {
    const finding = "cannot be used: io_uring is switched off (kernel.io_uring_disabled=2)";
    return warn(name, finding, 'run "sysctl kernel.io_uring_disabled=0", or use NBD nodes');
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

export function checkUblkLeftBehind({ ublk: { leftBehind, waiting } }: Facts): Check {
  const name = "ublk-left-behind";
  if (leftBehind.length + waiting.length === 0) return ok(name, "no ublk device without a server");
  const finding = [
    ...(leftBehind.length > 0 ? [`${leftBehind.join(", ")}: no server is to be seen`] : []),
    ...(waiting.length > 0 ? [`${waiting.join(", ")}: waiting for another server`] : []),
  ].join("; ");
  const remedies = [
    ...leftBehind.map((path) => `"tsbuse disconnect ${shellWord(path)}"`),
    ...waiting.map((path) => `"tsbuse recover ${shellWord(path)} …"`),
  ];
  return warn(name, finding, `run ${remedies.join(", ")}`);
}
