/**
 * Builds the binary and runs the main job for real: on this kernel where it has the driver and we may use it, else
 * in the virtual machine. With --record always there, and what it prints becomes a picture.
 */
import { delimiter, join } from "node:path";
import { ensureInstalled, findCommand, isRoot } from "./lib/apt.ts";
import { Failure } from "./lib/failure.ts";
import { ROOT } from "./lib/suites.ts";
import { drawTerminal } from "./lib/terminal.ts";
import { nodeNames } from "../src/nbd/node/nodes.ts";

const SESSION = "scripts/lib/demo-session.sh";
const PICTURE = "docs/demo.svg";
const LABEL =
  "A RAM disk with a file system, written, read back, checked and detached: commands and their answers";
const PATH = [`${ROOT}/dist`, "/usr/sbin", "/usr/bin", "/sbin", "/bin"].join(delimiter);
const IN_MACHINE = ["scripts/vm", "--timeout", "300", "--env", `PATH=${PATH}`, "--", "sh", SESSION];

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

/** Writes the picture of a session that ended well. Returns its exit status. */
async function record(): Promise<number> {
  const session = Bun.spawn(IN_MACHINE, { cwd: ROOT, stdio: ["ignore", "pipe", "inherit"] });
  const printed = await session.stdout.text();
  process.stdout.write(printed);
  const status = await session.exited;
  if (status !== 0) return status;
  await Bun.write(join(ROOT, PICTURE), drawTerminal(printed, LABEL));
  console.log(`\n${PICTURE} shows this now.`);
  return 0;
}

async function main(words: readonly string[]): Promise<number> {
  const unknown = words.find((word) => word !== "--record");
  if (unknown !== undefined) throw new Failure(`unknown argument ${unknown}: give --record or nothing`, 2);
  await ensureInstalled([{ command: "mkfs.ext4", package: "e2fsprogs" }]);
  console.log("$ bun run build");
  const built = await spawn([process.execPath, "run", "build"]);
  if (built !== 0) return built;
  if (words.length > 0) return record();
  if (isRoot() && hasDriver()) {
    console.log("\nThis kernel has the nbd driver: the demo runs on it.");
    return spawn(["sh", SESSION], { ...process.env, PATH });
  }
  const reason = isRoot() ? "This kernel has no nbd driver" : "We are not root";
  console.log(`\n${reason}: the demo runs in a virtual machine with a Debian kernel.`);
  return spawn(IN_MACHINE);
}

try {
  process.exit(await main(process.argv.slice(2)));
} catch (error) {
  if (!(error instanceof Failure)) throw error;
  console.error(`scripts/demo: ${error.message}`);
  process.exit(error.exitStatus);
}
