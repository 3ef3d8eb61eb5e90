/** The kernel suite, seen from the host: runs kernel-guest.ts in the virtual machine. */
import { Failure } from "../lib/failure.ts";
import { ROOT } from "../lib/suites.ts";
import type { Plan } from "./options.ts";
import type { GroupResult, Machine } from "./results.ts";
import { buildUblkPeer } from "./ublk-peer.ts";

/** The plan for the guest, as JSON. */
export type KernelPlan = Omit<Plan, "filter" | "footprints"> & { readonly filter?: string };

/** The guest's output. */
export interface KernelOutput {
  readonly machine: Machine;
  readonly groups: GroupResult[];
}

const LIMIT_SECONDS = "2400";
const MEMORY_MIB = "4096";

/** @throws Failure */
export async function runKernel({ rounds, seconds, seed, quick, filter }: Plan): Promise<KernelOutput> {
  const plan: KernelPlan = {
    rounds,
    seconds,
    seed,
    quick,
    ...(filter !== undefined && { filter: filter.source }),
  };
  await buildUblkPeer();
  const inside = [process.execPath, "scripts/bench/kernel-guest.ts", JSON.stringify(plan)];
  // Ends the machine with this program, even if that is killed.
  const bound = ["setpriv", "--pdeathsig", "TERM"];
  const limits = ["--timeout", LIMIT_SECONDS, "--memory", MEMORY_MIB];
  const vm = Bun.spawn([...bound, "scripts/vm", ...limits, "--", ...inside], {
    cwd: ROOT,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [text, status] = await Promise.all([vm.stdout.text(), vm.exited]);
  if (status !== 0) throw new Failure("the benchmark in the virtual machine failed: see above");
  const output: KernelOutput = JSON.parse(text);
  return output;
}
