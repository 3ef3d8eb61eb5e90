/** Whether the driver is there or can be had, and how. */
import { type Check, fail, ok } from "./check.ts";
import type { Facts } from "./facts.ts";

export function checkDriver({ driver, kernelRelease }: Facts): Check {
  const name = "driver";
  const directory = `/lib/modules/${kernelRelease}`;
  const missing = (what: string, remedy: string): Check =>
    fail(name, `nbd is not loaded, and ${what}`, remedy);

  if (driver.loaded) return ok(name, driver.builtIn ? "nbd, built into the kernel" : "nbd is loaded");
  if (driver.builtIn)
    return fail(name, "nbd is built into the kernel, but /sys does not show it", "mount /sys");
  if (driver.modules === "absent") {
    const remedy =
      'install its modules, or boot a kernel that has them; in a container, "modprobe nbd" outside';
    return missing(`${directory} does not exist`, remedy);
  }
  if (driver.modules === "no index") return missing(`${directory} has no modules.dep`, 'run "depmod"');
  if (driver.modulePath === undefined) {
    const remedy = "install its extra modules (linux-modules-extra, kernel-modules-extra), or another kernel";
    return missing(`this kernel has none, neither built in nor in ${directory}`, remedy);
  }
  if (driver.loadingDisabled) {
    return missing("no module can be (kernel.modules_disabled=1)", "reboot, and load nbd before that is set");
  }
  if (!driver.modprobe) {
    const remedy = `install kmod, or run "insmod ${directory}/${driver.modulePath}"`;
    return missing("there is no modprobe to load it", remedy);
  }
  return ok(name, "nbd is not loaded yet: attaching a device loads it");
}
