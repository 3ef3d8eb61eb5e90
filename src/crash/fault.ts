/** A state in which the checker finds a fault, reduced to the fewest writes that show it. */
import { fewest } from "../values/fewest.ts";
import type { Bench } from "./bench.ts";
import type { Finding } from "./checker.ts";
import type { Choice } from "./choices.ts";
import type { Pending } from "./pending-changes.ts";
import type { Change } from "./history.ts";
import { type Run, type Runs, without } from "./ranges.ts";

export interface Fault {
  readonly finding: Finding;
  /** `lost`: everything in flight reached the disk except these writes. `there`: only these did. */
  readonly kind: "lost" | "there";
  readonly writes: readonly Pending[];
  /** The changes in flight that reached the disk. */
  readonly choice: Choice;
  /** How many changes were in flight or not flushed, in total. */
  readonly pending: number;
}

/** How often a state is tried before it counts as one that fails only now and then. */
const ATTEMPTS = 3;

/**
 * Undefined if the checker does not find the fault again.
 * @param shrinkTime milliseconds for reducing it once it was found again.
 * @param signal a checker that it ended has found nothing.
 */
export async function shrinkFault(
  bench: Bench,
  choice: Choice,
  shrinkTime: number,
  signal: AbortSignal,
): Promise<Fault | undefined> {
  let finding: Finding | undefined;
  const failsAgain = async (candidate: Choice): Promise<boolean> => {
    const found = signal.aborted ? undefined : await bench.try(candidate);
    if (found === undefined || signal.aborted) return false;
    finding = found;
    return true;
  };
  let attempts = 0;
  while (attempts < ATTEMPTS && !(await failsAgain(choice))) attempts += 1;
  if (finding === undefined) return undefined;
  const deadline = performance.now() + shrinkTime;
  const fails = async (candidate: Choice): Promise<boolean> =>
    performance.now() < deadline && failsAgain(candidate);
  const { pending } = bench.epoch;
  const all = less(pending, choice);
  const lost = await fewest(all, (candidate) => fails(less(pending, candidate)), 0);
  const there = await fewest(choice, fails, 0);
  const isLost = there.length === 0 || (lost.length > 0 && lost.length <= there.length);
  const [kind, writes] = isLost ? (["lost", lost] as const) : (["there", there] as const);
  // `finding` may be that of another candidate: try the one that is shown once more.
  const smallest = kind === "lost" ? less(pending, lost) : there;
  await fails(smallest);
  return { finding, kind, writes, choice: smallest, pending: pending.length };
}

/** What is in `all` but not in `some`. */
function less(all: readonly Pending[], some: readonly Pending[]): Pending[] {
  const others = new Map<Change, Run[]>();
  for (const { change, runs } of some) {
    const known = others.get(change);
    if (known === undefined) others.set(change, [...runs]);
    else known.push(...runs);
  }
  return all.flatMap(({ change, runs }) => {
    let left: Runs = runs;
    for (const run of others.get(change) ?? []) left = without(left, run);
    return left.length === 0 ? [] : [{ change, runs: left }];
  });
}

/** How much of a write's data is shown, in bytes. */
const SHOWN_MAX = 16;

/** `write of 4096 bytes at 81920: 53 51 4c 69 … "SQLi"`. */
export function describeWrite({ change, runs }: Pending, record: Uint8Array): string {
  const bytes = (change.end - change.first) * 512;
  const isTorn = runs.length !== 1 || runs[0]?.first !== change.first || runs[0].end !== change.end;
  const parts = runs.map(({ first, end }) => `${first * 512} to ${end * 512 - 1}`).join(", ");
  const what = `${change.kind} of ${bytes} bytes at ${change.first * 512}${isTorn ? `, of it bytes ${parts}` : ""}`;
  const first = runs[0]?.first ?? change.first;
  if (change.value === 0) return what;
  const at = change.payload + (first - change.first) * 512;
  const held = record.subarray(at, at + SHOWN_MAX);
  const hex = [...held].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
  const text = [...held]
    .map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : "."))
    .join("");
  return `${what}: ${hex} "${text}"`;
}
