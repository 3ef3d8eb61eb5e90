/** Where a system keeps what is needed to load a module. */
import { release } from "node:os";

export interface ModuleSystem {
  /** The running kernel, as uname(2) has it: `6.12.9-amd64`. */
  readonly release: string;
  /** Directories of module trees; the first that has one for the kernel counts. */
  readonly roots: readonly string[];
  readonly sys: string;
  readonly proc: string;
  /** Where modprobe is looked for, as in $PATH. */
  readonly path: string;
}

export function thisSystem(): ModuleSystem {
  return {
    release: release(),
    // The last is NixOS's.
    roots: ["/lib/modules", "/usr/lib/modules", "/run/booted-system/kernel-modules/lib/modules"],
    sys: "/sys",
    proc: "/proc",
    path: "/usr/sbin:/sbin:/usr/bin:/bin",
  };
}
