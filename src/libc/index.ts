/**
 * The C library, for devices that need more of the system than Bun offers: raw files, block devices and memory.
 * Functions return a negative errno on failure; {@link unwrap} turns that into an exception.
 */
export { LOCK_EX, LOCK_NB, LOCK_SH, O_CREAT, O_DIRECT, O_EXCL, O_RDONLY, O_RDWR } from "../uapi/fcntl.ts";
export { S_IFBLK, S_IFCHR } from "../uapi/unistd.ts";
export { AsyncFile, type AsyncFileOptions } from "./async-file.ts";
export * from "./block.ts";
export { errorText, unwrap } from "./errno.ts";
export * from "./file.ts";
export { type MemoryLimit, MemoryLimits } from "./cgroup.ts";
export { fileIdentity } from "./file-identity.ts";
export { Memory, memoryFile } from "./memory.ts";
export {
  type GuardState,
  MemoryGuard,
  type MemoryGuardOptions,
  type Spare,
  spareMemory,
} from "./memory-guard.ts";
export * from "./meminfo.ts";
export { HUGE_PAGE } from "./pagemap.ts";
export * from "./sysfs.ts";
export type { ResidenceState } from "./residence.ts";
