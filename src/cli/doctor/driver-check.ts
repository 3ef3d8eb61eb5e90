/** Whether the driver is loaded or can be loaded, and how. */
import { HIDDEN } from "../../kmod/plan.ts";
import { type Check, fail, ok } from "./check.ts";
import type { Facts } from "./facts.ts";

const NAME = "driver";

export function checkDriver({ driver: { plan } }: Facts): Check {
  switch (plan.way) {
    case "loaded":
      return ok(NAME, plan.builtIn ? "nbd, built into the kernel" : "nbd is loaded");
    case "hidden":
      return fail(NAME, `nbd cannot be used, ${HIDDEN.cause}`, HIDDEN.remedy);
    case "modprobe":
      return ok(NAME, `nbd is not loaded yet: attaching a device loads it with ${plan.program}`);
    case "files":
      return ok(NAME, `nbd is not loaded yet: attaching a device loads ${plan.files.join(", then ")}`);
    case "none":
      return fail(NAME, `nbd is not loaded, and ${plan.cause}`, plan.remedy);
  }
}
