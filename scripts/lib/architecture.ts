/**
 * The processors of the virtual machines, by bun's names, and their differences.
 */
export const ARCHITECTURES = {
  x64: {
    /** Debian's name. */
    debian: "amd64",
    qemu: { command: "qemu-system-x86_64", package: "qemu-system-x86" },
    board: "q35",
    console: "ttyS0",
    // Hides the fast string instructions (ERMS, FSRM) of an emulated processor: a kernel and a C library that see them
    // copy and clear memory with them, which the emulator does byte by byte.
    processor: (model: string) => `${model},-erms,-fsrm`,
  },
  arm64: {
    debian: "arm64",
    qemu: { command: "qemu-system-aarch64", package: "qemu-system-arm" },
    board: "virt",
    console: "ttyAMA0",
    // Signing pointers by the algorithm of the architecture takes an emulator long. With SVE, programs crash now and
    // then in QEMU 7.2, whatever the size of pages: every third run of bun, with nothing but JavaScript to do.
    processor: (model: string) => (model === "max" ? "max,pauth-impdef=on,sve=off" : model),
  },
} as const;

export type Architecture = keyof typeof ARCHITECTURES;
