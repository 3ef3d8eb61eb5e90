/** Loading kernel modules. Each function returns 0 or -errno (see errno.ts). */
import { SYS_finit_module, SYS_init_module } from "../uapi/unistd.ts";
import { cString } from "./address.ts";
import { negativeErrno } from "./errno.ts";
import { libc } from "./library.ts";

/**
 * finit_module(2).
 * @param fd an ELF image, opened for reading only, or with MODULE_INIT_COMPRESSED_FILE a compressed one.
 * @param parameters `max_part=16 nbds_max=4`.
 */
export function finitModule(fd: number, parameters: string, flags = 0): number {
  return negativeErrno(libc.finit_module(SYS_finit_module, fd, cString(parameters), flags));
}

/** init_module(2) of an ELF image in memory. */
export function initModule(image: Uint8Array, parameters: string): number {
  return negativeErrno(libc.init_module(SYS_init_module, image, image.byteLength, cString(parameters)));
}
