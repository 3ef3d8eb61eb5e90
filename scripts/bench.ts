/**
 * Measures tsbuse beside nbdkit's memory plugin, in turn, and prints medians and ratios.
 *
 *     bun run bench               all of the following
 *     bun run bench native        the request loop alone, on this machine, without a kernel driver
 *     bun run bench async         what promises cost, natively
 *     bun run bench vm            with the kernel's driver and fio, in the virtual machine
 *     bun run bench --rounds N    rounds counted (default 5)
 */
import { parseArgs } from "node:util";
import { ensureInstalled } from "./lib/apt.ts";
import { benchAsync } from "./lib/bench-async.ts";
import { benchNative } from "./lib/bench-native.ts";
import { Failure } from "./lib/failure.ts";
import { ROOT } from "./lib/suites.ts";

const BENCHMARKS: readonly string[] = ["native", "async", "vm"];
const SECONDS = "3";
const VM_LIMIT_SECONDS = "1500";

async function benchVm(rounds: number): Promise<void> {
  const build = Bun.spawn([process.execPath, "run", "build"], {
    cwd: ROOT,
    stdio: ["ignore", "ignore", "inherit"],
  });
  if ((await build.exited) !== 0) throw new Failure("the binary cannot be built: see above");
  const inside = [process.execPath, "scripts/lib/bench-kernel.ts", String(rounds), SECONDS];
  const vm = Bun.spawn(["scripts/vm", "--timeout", VM_LIMIT_SECONDS, "--", ...inside], {
    cwd: ROOT,
    stdio: ["ignore", "inherit", "inherit"],
  });
  if ((await vm.exited) !== 0) throw new Failure("the benchmark in the virtual machine failed: see above");
}

async function main(words: string[]): Promise<void> {
  const { values, positionals } = parseArgs({
    args: words,
    options: { rounds: { type: "string", default: "5" } },
    allowPositionals: true,
  });
  const rounds = Number(values.rounds);
  if (!Number.isInteger(rounds) || rounds < 1) throw new Failure("--rounds takes a whole number above 0", 2);
  const wrong = positionals.find((word) => !BENCHMARKS.includes(word));
  if (wrong !== undefined) {
    throw new Failure(`unknown benchmark "${wrong}": choose from ${BENCHMARKS.join(", ")}`, 2);
  }
  await ensureInstalled([
    { command: "nbdkit", package: "nbdkit" },
    { command: "nbd-client", package: "nbd-client" },
    { command: "fio", package: "fio" },
  ]);
  if (positionals.length === 0 || positionals.includes("native")) {
    console.log(`natively, medians of ${rounds} interleaved rounds`);
    await benchNative(rounds);
  }
  if (positionals.length === 0 || positionals.includes("async")) {
    console.log(`natively, with promises and without, medians of ${rounds} interleaved rounds`);
    await benchAsync(rounds);
  }
  if (positionals.length === 0 || positionals.includes("vm")) {
    console.log(
      `virtual machine, kernel driver and fio, medians of ${rounds} interleaved rounds of ${SECONDS} s`,
    );
    await benchVm(rounds);
  }
}

try {
  await main(process.argv.slice(2));
  process.exit(0);
} catch (error) {
  if (!(error instanceof Failure)) throw error;
  console.error(`bench: ${error.message}`);
  process.exit(error.exitStatus);
}
