/**
 * Builds the binary and runs the main job for real: on this kernel where it has the driver and we may use it, else
 * in the virtual machine.
 */
import { delimiter } from "node:path";
import { ensureInstalled, findCommand, isRoot } from "./lib/apt.ts";
import { Failure } from "./lib/failure.ts";
import { ROOT } from "./lib/suites.ts";
import { nodeNames } from "../src/nbd/node/nodes.ts";

const SESSION = "scripts/lib/demo-session.sh";

async function spawn(
  command: readonly string[],
  env: Record<string, string | undefined> = process.env,
): Promise<number> {
  const child = Bun.spawn([...command], { cwd: ROOT, env, stdio: ["ignore", "inherit", "inherit"] });
  return child.exited;
}

/** Whether this kernel has NBD nodes, after an attempt to load the driver. */
function hasDriver(): boolean {
  if (nodeNames().length > 0) return true;
  const modprobe = findCommand("modprobe");
  if (!isRoot() || modprobe === null) return false;
  Bun.spawnSync([modprobe, "nbd"], { stdio: ["ignore", "ignore", "ignore"] });
  return nodeNames().length > 0;
}

async function main(): Promise<number> {
  await ensureInstalled([{ command: "mkfs.ext4", package: "e2fsprogs" }]);
  console.log("$ bun run build");
  const built = await spawn([process.execPath, "run", "build"]);
  if (built !== 0) return built;
  const path = [`${ROOT}/dist`, "/usr/sbin", "/usr/bin", "/sbin", "/bin"].join(delimiter);
  if (isRoot() && hasDriver()) {
    console.log("\nThis kernel has the nbd driver: the demo runs on it.");
    return spawn(["sh", SESSION], { ...process.env, PATH: path });
  }
  const reason = isRoot() ? "This kernel has no nbd driver" : "We are not root";
  console.log(`\n${reason}: the demo runs in a virtual machine with a Debian kernel.`);
  return spawn(["scripts/vm", "--timeout", "300", "--env", `PATH=${path}`, "--", "sh", SESSION]);
}

try {
  process.exit(await main());
} catch (error) {
  if (!(error instanceof Failure)) throw error;
  console.error(`scripts/demo: ${error.message}`);
  process.exit(error.exitStatus);
}
