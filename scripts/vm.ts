/**
 * scripts/vm: runs a command in a virtual machine that has the nbd and ublk drivers, on any x86-64 Linux that can run
 * QEMU.
 */
import { statSync } from "node:fs";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { ARCHITECTURES, type Architecture } from "./lib/architecture.ts";
import { describeError, Failure } from "./lib/failure.ts";
import { ensureForeignRoot } from "./lib/foreign-root.ts";
import type { Job } from "./lib/job.ts";
import { ensureKernel } from "./lib/kernel.ts";
import { KERNEL_SERIES, type KernelSeries } from "./lib/kernel-package.ts";
import type { Hardware } from "./lib/qemu.ts";
import { ensureVmHost } from "./lib/vm-host.ts";
import { runJob } from "./lib/vm-run.ts";

const USAGE = `usage: scripts/vm [options] -- COMMAND [ARG...]

Runs COMMAND as root in a virtual machine that has Linux, the nbd and ublk drivers, and this machine's files.
Passes on the stdout, the stderr and the exit status of COMMAND. What COMMAND changes is gone with the virtual machine,
except in this checkout and in the working directory. There is no network, and stdin is empty. /run, /tmp and /mnt are
empty, too, except for the checkout and the working directory if they are there.

  --arch ARCH        its processor: x64 (default), or arm64, where COMMAND sees a small Debian for arm64, and of this
                     machine's files only the checkout and the working directory
  --kernel SERIES    Linux 6.1 (which has no ublk), 6.12 (default), or newest: the newest that Debian packages;
                     with --arch arm64 6.12, or 6.12-16k, which has pages of 16 KiB
  --timeout SECONDS  stop after SECONDS, boots included (default 600)
  --memory MIB       memory of the virtual machine (default 3072)
  --cpus N           its processors (default 2)
  --cpu MODEL        what they are, as QEMU names it: Nehalem for an old one; not with KVM
                     (default max: all that QEMU emulates, on arm64 without SVE, with which programs crash)
  --disk MIB         a disk of its own, empty: /dev/vda, the next one /dev/vdb; may be repeated
  --cwd DIR          the working directory (default: this checkout)
  --env NAME=VALUE   set a variable for COMMAND, which inherits none of ours; may be repeated
  --verbose          report the steps on stderr
  --help             print this

Exit status: that of COMMAND; 2 if the command line is wrong or this machine lacks something; 124 when the time is up;
125 when the virtual machine failed.

Environment: TSBUSE_VM_ACCEL=kvm uses KVM instead of software emulation. Kernels and the Debian for
arm64 are kept in XDG_CACHE_HOME: remove tsbuse/vm* and tsbuse/roots there to get newer ones.
`;

const CHECKOUT = resolve(import.meta.dir, "..");

interface Options {
  readonly architecture: Architecture;
  readonly series: KernelSeries;
  readonly timeoutSeconds: number;
  readonly hardware: Hardware;
  readonly job: Omit<Job, "root">;
  readonly verbose: boolean;
}

/** Returns the exit status. */
async function main(argv: readonly string[]): Promise<number> {
  const separator = argv.indexOf("--");
  const own = separator < 0 ? argv : argv.slice(0, separator);
  if (own.includes("--help")) {
    process.stdout.write(USAGE);
    return 0;
  }
  const options = parseOptions(own, separator < 0 ? [] : argv.slice(separator + 1));
  const { architecture, hardware, timeoutSeconds, verbose } = options;
  const virtiofsd = await ensureVmHost(architecture);
  const kernel = await ensureKernel(options.series, architecture);
  const job = { ...options.job, root: architecture === "x64" ? "/" : await ensureForeignRoot(architecture) };
  const logDetail = verbose ? log : () => {};
  return runJob({ kernel, virtiofsd, hardware, job }, { timeoutSeconds, log, logDetail });
}

function parseOptions(own: readonly string[], command: readonly string[]): Options {
  const { values, positionals } = parseOwn(own);
  if (positionals.length > 0) throw usageError(`put "--" before the command`);
  if (command.length === 0) throw usageError(`no command: name it after "--"`);
  const architecture = architectureNamed(values.arch);
  return {
    architecture,
    series: kernelSeries(architecture, values.kernel),
    timeoutSeconds: wholeNumber("--timeout", values.timeout),
    hardware: {
      memoryMib: wholeNumber("--memory", values.memory),
      cpus: wholeNumber("--cpus", values.cpus),
      model: cpuModel(values.cpu),
      disksMib: values.disk.map((text) => wholeNumber("--disk", text)),
      accelerator: accelerator(architecture, process.env["TSBUSE_VM_ACCEL"] || "tcg"),
    },
    job: {
      command,
      directory: existingDirectory(values.cwd),
      checkout: CHECKOUT,
      environment: values.env.map(variable),
    },
    verbose: values.verbose,
  };
}

function parseOwn(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        arch: { type: "string", default: "x64" },
        kernel: { type: "string", default: "6.12" },
        timeout: { type: "string", default: "600" },
        memory: { type: "string", default: "3072" },
        cpus: { type: "string", default: "2" },
        cpu: { type: "string", default: "max" },
        disk: { type: "string", multiple: true, default: [] },
        cwd: { type: "string", default: CHECKOUT },
        env: { type: "string", multiple: true, default: [] },
        verbose: { type: "boolean", default: false },
      },
    });
  } catch (error) {
    throw usageError(describeError(error).split(". ", 1)[0] ?? "");
  }
}

function architectureNamed(text: string): Architecture {
  if (text === "x64" || text === "arm64") return text;
  throw usageError(`--arch "${text}" is unknown: choose from ${Object.keys(ARCHITECTURES).join(", ")}`);
}

function kernelSeries(architecture: Architecture, text: string): KernelSeries {
  const all: readonly KernelSeries[] = KERNEL_SERIES[architecture];
  const series = all.find((name) => name === text);
  if (series !== undefined) return series;
  throw usageError(`--kernel "${text}" is unknown for ${architecture}: choose from ${all.join(", ")}`);
}

function cpuModel(text: string): string {
  if (/^[\w.-]+$/.test(text)) return text;
  throw usageError(`--cpu "${text}" is invalid: "qemu-system-x86_64 -cpu help" lists the models`);
}

function wholeNumber(name: string, text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw usageError(`${name} "${text}" is not a number above 0`);
  return Number(text);
}

function accelerator(architecture: Architecture, text: string): Hardware["accelerator"] {
  if (text === "kvm" && architecture !== process.arch)
    throw usageError(`TSBUSE_VM_ACCEL=kvm cannot run ${architecture} on this machine: unset it`);
  if (text === "tcg" || text === "kvm") return text;
  throw usageError(`TSBUSE_VM_ACCEL "${text}" is invalid: give tcg or kvm`);
}

function existingDirectory(path: string): string {
  const directory = resolve(path);
  if (statSync(directory, { throwIfNoEntry: false })?.isDirectory() === true) return directory;
  throw usageError(`--cwd ${path} is not a directory`);
}

function variable(assignment: string): readonly [name: string, value: string] {
  const [, name, value] = /^([A-Za-z_]\w*)=(.*)$/s.exec(assignment) ?? [];
  if (name === undefined || value === undefined) throw usageError(`--env "${assignment}" is not NAME=VALUE`);
  return [name, value];
}

function usageError(message: string): Failure {
  return new Failure(`${message}; see scripts/vm --help`, 2);
}

function log(message: string): void {
  for (const line of message.split("\n")) console.error(`scripts/vm: ${line}`);
}

/** True for the error of a write to a pipe whose reader is gone, as in "scripts/vm -- … | head". */
function isBrokenPipe(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "EPIPE";
}

// Every write waits for its own outcome; the stream's error event only repeats it.
process.stdout.on("error", () => {});
process.stderr.on("error", () => {});

try {
  process.exit(await main(process.argv.slice(2)));
} catch (error) {
  // The status of a process that SIGPIPE ended.
  if (isBrokenPipe(error)) process.exit(141);
  if (!(error instanceof Failure)) throw error;
  log(error.message);
  process.exit(error.exitStatus);
}
