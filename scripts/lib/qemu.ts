/**
 * The parts of the virtual machine, as QEMU's command line names them.
 */
import { join } from "node:path";
import { ARCHITECTURES, type Architecture } from "./architecture.ts";
import { FIRST_PROCESS } from "./job.ts";
import type { Kernel } from "./kernel.ts";

/** The machine's hardware. */
export interface Hardware {
  readonly memoryMib: number;
  readonly cpus: number;
  /** The processors' model, as QEMU names it; with KVM they are the host's. */
  readonly model: string;
  /** The size of each disk. */
  readonly disksMib: readonly number[];
  /** `tcg`, software emulation, works everywhere; `kvm` is faster where /dev/kvm can run a stock kernel. */
  readonly accelerator: "tcg" | "kvm";
}

/** The virtio ports through which the guest talks to us, in the order of their numbers, which start at 1. */
export const PORTS = ["stdout", "stderr", "reports"] as const;

/** The files of one machine, all in its own directory. */
export function machineFiles(directory: string) {
  return {
    job: join(directory, "job"),
    disk: (index: number) => join(directory, `disk${index}`),
    console: join(directory, "console.log"),
    qemuLog: join(directory, "qemu.log"),
    virtiofsdLog: join(directory, "virtiofsd.log"),
    rootSocket: join(directory, "root.sock"),
    portSocket: (port: (typeof PORTS)[number]) => join(directory, `${port}.sock`),
  };
}

/** The command that serves the host's root directory to the machine in `directory`. */
export function virtiofsdCommand(program: string, directory: string): readonly string[] {
  const common = [program, `--socket-path=${machineFiles(directory).rootSocket}`];
  // The guest caches everything, because files here hardly ever change while the machine runs. A container may not make
  // a mount namespace, the default sandbox. Announced mount points could not lie below an overlay.
  return program.startsWith("/usr/lib/qemu")
    ? [...common, "-o", "source=/,cache=always,sandbox=chroot"]
    : [...common, "--shared-dir=/", "--cache=always", "--sandbox=chroot", "--no-announce-submounts"];
}

/** QEMU's options for the processor. */
export function processorOptions(
  accelerator: Hardware["accelerator"],
  model = "max",
  architecture: Architecture = "x64",
): readonly string[] {
  return accelerator === "kvm"
    ? ["-accel", "kvm", "-cpu", "host"]
    : ["-accel", "tcg,thread=multi", "-cpu", ARCHITECTURES[architecture].processor(model)];
}

/** The command that runs the machine in `directory`, its root served by virtiofsd. */
export function qemuCommand(directory: string, kernel: Kernel, hardware: Hardware): readonly string[] {
  const files = machineFiles(directory);
  const memory = `${hardware.memoryMib}M`;
  const { qemu, board, console } = ARCHITECTURES[kernel.architecture];
  const options: readonly (readonly string[])[] = [
    ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    ["-machine", `${board},memory-backend=memory`, "-smp", `${hardware.cpus}`, "-m", memory],
    processorOptions(hardware.accelerator, hardware.model, kernel.architecture),
    // Shared, because virtiofsd reads and writes the guest's memory.
    ["-object", `memory-backend-memfd,id=memory,size=${memory},share=on`],
    ["-chardev", `socket,id=root,path=${files.rootSocket}`],
    ["-device", "vhost-user-fs-pci,chardev=root,tag=root"],
    // Ports, not consoles: a console has a line discipline, and drops output that we read too slowly.
    ["-device", "virtio-serial-pci"],
    PORTS.flatMap((port) => ["-chardev", `socket,id=${port},path=${files.portSocket(port)}`]),
    PORTS.flatMap((port, index) => ["-device", `virtserialport,chardev=${port},nr=${index + 1}`]),
    hardware.disksMib.flatMap((_, index) => [
      "-drive",
      `file=${files.disk(index)},format=raw,if=virtio,cache=unsafe,discard=unmap`,
    ]),
    ["-serial", `file:${files.console}`],
    ["-kernel", kernel.image, "-append", kernelArguments(directory, console)],
    kernel.initramfs === undefined ? [] : ["-initrd", kernel.initramfs],
  ];
  return [qemu.command, ...options.flat()];
}

function kernelArguments(directory: string, console: string): string {
  return [
    "root=root rootfstype=virtiofs rw",
    `init=${join(machineFiles(directory).job, FIRST_PROCESS)}`,
    `console=${console}`,
    // After an oops no result is valid. QEMU ends where the guest would reboot.
    "oops=panic panic=-1",
  ].join(" ");
}
