/** Files in memory: memfd_create(2). */
import { errno } from "../uapi/errno.ts";
import { MFD_CLOEXEC, MFD_EXEC, MFD_NOEXEC_SEAL } from "../uapi/mman.ts";
import { SYS_memfd_create } from "../uapi/unistd.ts";
import { cString } from "./address.ts";
import { negativeErrno, unwrap } from "./errno.ts";
import { libc } from "./library.ts";

/**
 * Makes an empty file without a name. Returns its descriptor.
 * @param isProgram whether it can be executed, even if files in memory are not by default (sysctl vm.memfd_noexec=1).
 * @throws ErrnoError EACCES for a program with vm.memfd_noexec=2.
 */
export function createMemoryFile(isProgram: boolean): number {
  const result = create(MFD_CLOEXEC | (isProgram ? MFD_EXEC : MFD_NOEXEC_SEAL));
  // Linux before 6.3 does not know these flags, and always allows execution.
  return unwrap(result === -errno.EINVAL ? create(MFD_CLOEXEC) : result, "memfd_create");
}

/** Returns a file descriptor, or -errno. */
function create(flags: number): number {
  return negativeErrno(libc.memfd_create(SYS_memfd_create, cString("tsbuse"), flags));
}
