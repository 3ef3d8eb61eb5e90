/**
 * Boots an initramfs, or a whole system, in a machine with only a processor, memory, a serial port and perhaps a disk.
 *
 * The system reports on the console, in lines that begin with MARK. The first is "begin"; the last is "end" with a
 * token of this boot from the kernel's command line. Then it switches the machine off.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { lastLines } from "../../scripts/lib/guest-output.ts";
import { ensureKernel } from "../../scripts/lib/kernel.ts";
import { processorOptions } from "../../scripts/lib/qemu.ts";
import { TemporaryDirectory } from "./temporary.ts";

export const MARK = "tsbuse-boot: ";

/** The time limit until the first line, in milliseconds: ten times the normal duration. */
const BEGIN_MS_MAX = 90_000;

/** Under software emulation a boot sometimes dies before anything of ours runs: then it is repeated. */
const BOOTS_MAX = 3;

export interface BootPlan {
  /** The path of the initramfs, if there is one. */
  readonly image?: string;
  /** A raw image of a whole system, its root for a machine without an initramfs; changes are lost. It may reboot. */
  readonly system?: string;
  readonly memoryMib: number;
  /** Further words for the kernel's command line. */
  readonly parameters?: string;
  /** The console's text when the initramfs has begun; default: the first line. */
  readonly beginning?: string;
  /** A raw image, for /dev/vda; changes are lost. */
  readonly disk?: string;
  /** The time limit from the first line until the machine is off. */
  readonly limitMs: number;
}

/** Returns the lines between the first and the last. @throws Error with the console's last lines. */
export async function boot(plan: BootPlan): Promise<string[]> {
  for (let boots = 1; ; boots += 1) {
    const outcome = await bootOnce(plan);
    const begin = outcome.said.indexOf("begin");
    const end = outcome.said.indexOf(`end ${outcome.token}`);
    if (outcome.failure === undefined && begin === 0 && end === outcome.said.length - 1) {
      return outcome.said.slice(begin + 1, end);
    }
    if (outcome.begun || boots === BOOTS_MAX) {
      const reason = outcome.failure ?? "it did not come to its end";
      throw new Error(`the boot failed: ${reason}\n${lastLines(outcome.console, 120).join("\n")}`);
    }
  }
}

interface Outcome {
  readonly token: string;
  readonly begun: boolean;
  readonly said: readonly string[];
  readonly console: string;
  /** Absent: the machine was switched off from inside, in time. */
  readonly failure?: string;
}

async function bootOnce(plan: BootPlan): Promise<Outcome> {
  using directory = new TemporaryDirectory();
  const log = directory.join("console.log");
  const token = crypto.randomUUID();
  await Bun.write(log, "");
  const machine = Bun.spawn(["setpriv", "--pdeathsig", "KILL", ...(await command(plan, token, log))], {
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  const read = () => readFileSync(log, "utf8").replaceAll("\r", "");
  const begun = () => read().includes(plan.beginning ?? `${MARK}begin\n`);
  const ended = machine.exited.then(() => true);
  const over = (limitMs: number) => Promise.race([ended, Bun.sleep(limitMs).then(() => false)]);
  try {
    const deadline = performance.now() + BEGIN_MS_MAX;
    while (!begun() && performance.now() < deadline && !(await over(100)));
    const done = begun() && (await over(plan.limitMs));
    const failure = done
      ? await explainEnd(machine)
      : `it was still running after its time, begun: ${begun()}`;
    const console = read();
    return {
      token,
      begun: begun(),
      said: linesSaid(console),
      console,
      ...(failure === undefined ? {} : { failure }),
    };
  } finally {
    machine.kill("SIGKILL");
    await machine.exited;
  }
}

async function explainEnd(machine: Bun.Subprocess<"ignore", "ignore", "pipe">): Promise<string | undefined> {
  const complaint = await machine.stderr.text();
  return machine.exitCode === 0 ? undefined : `QEMU ended with ${machine.exitCode}: ${complaint}`;
}

function linesSaid(console: string): string[] {
  const lines = console.split("\n").filter((line) => line.startsWith(MARK));
  return lines.map((line) => line.slice(MARK.length));
}

async function command(plan: BootPlan, token: string, log: string): Promise<string[]> {
  const kernel = await ensureKernel();
  const parameters = [
    "console=ttyS0 loglevel=1 oops=panic panic=-1",
    `tsbuse_boot=${token}`,
    ...(plan.parameters === undefined ? [] : [plan.parameters]),
  ];
  const { image, system } = plan;
  // The kernel has the NVMe driver built in, unlike other disk drivers.
  if (system !== undefined) parameters.push("root=/dev/nvme0n1 rw");
  const options: readonly (readonly string[])[] = [
    ["-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35", "-smp", "2"],
    system === undefined
      ? ["-no-reboot"]
      : [
          "-drive",
          `file=${system},format=raw,if=none,id=system,snapshot=on`,
          "-device",
          "nvme,drive=system,serial=1",
        ],
    processorOptions(process.env["TSBUSE_VM_ACCEL"] === "kvm" ? "kvm" : "tcg"),
    ["-m", `${plan.memoryMib}M`, "-serial", `file:${log}`],
    ["-kernel", kernel.image, "-append", parameters.join(" ")],
    image === undefined ? [] : ["-initrd", image],
    plan.disk === undefined ? [] : ["-drive", `file=${plan.disk},format=raw,if=virtio,snapshot=on`],
  ];
  return ["qemu-system-x86_64", ...options.flat()];
}

/** The path of a module of the guest's kernel, unpacked. */
export async function moduleFile(name: string): Promise<string> {
  const { modules, version } = await ensureKernel();
  return join(modules, version, "kernel", `${name}.ko`);
}
