/**
 * The root directory after switch_root(8), which mounts the new root over the old one and moves /dev, /proc, /sys and
 * /run there. A process that was there before keeps the old root, in which nothing is left. But ".." of a root
 * directory leads to what is mounted over it, which is the root of all other processes. If nothing is mounted over it,
 * ".." leads to the root itself (path_resolution(7)).
 */
import { cString } from "./address.ts";
import { negativeErrno } from "./errno.ts";
import { libc } from "./library.ts";

/** The same path in the root that is in use now. */
export function inCurrentRoot(path: string): string {
  return path.startsWith("/") ? `/..${path}` : path;
}

/**
 * chroot(2) into the current root. From then on this process keeps that root in use, so do it only at the end.
 * Returns 0 or -errno: -EPERM without CAP_SYS_CHROOT.
 */
export function enterCurrentRoot(): number {
  return negativeErrno(libc.chroot(cString(inCurrentRoot("/"))));
}
