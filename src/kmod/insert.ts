/** Giving one module file to the kernel, without modprobe(8). */
import { messageOf } from "../errors.ts";
import { errorText } from "../libc/errno.ts";
import { close, open } from "../libc/file.ts";
import { finitModule, initModule } from "../libc/module.ts";
import { readAttribute } from "../libc/sysfs.ts";
import { errno } from "../uapi/errno.ts";
import { O_RDONLY } from "../uapi/fcntl.ts";
import { MODULE_INIT_COMPRESSED_FILE } from "../uapi/module.ts";
import { compressionOf, moduleInfo, readImage } from "./image.ts";
import type { Obstacle } from "./plan.ts";
import type { ModuleSystem } from "./system.ts";

/**
 * Loads a module whose dependencies are there. One that is loaded already is a success.
 * @param parameters `max_part=16 nbds_max=4`.
 * @returns why it cannot be loaded; undefined when it is.
 */
export async function insertModule(
  path: string,
  parameters: string,
  system: ModuleSystem,
): Promise<Obstacle | undefined> {
  try {
    const result = await insert(path, parameters, system);
    if (result === 0 || result === -errno.EEXIST) return undefined;
    return await explain(path, -result, parameters, system);
  } catch (error) {
    return { cause: `${path} cannot be decompressed (${messageOf(error)})`, remedy: "install it anew" };
  }
}

/** Returns 0 or -errno. */
async function insert(path: string, parameters: string, system: ModuleSystem): Promise<number> {
  const compression = compressionOf(path);
  if (compression === undefined) return insertFile(path, parameters, 0);
  // The kernel checks a file more strictly than an image, so it is asked first where it can decompress this one.
  if (readAttribute(`${system.sys}/module/compression`) === compression) {
    const result = insertFile(path, parameters, MODULE_INIT_COMPRESSED_FILE);
    // Not this file, or not with the memory that it has.
    if (![-errno.EINVAL, -errno.EOPNOTSUPP, -errno.ENOMEM].includes(result)) return result;
  }
  return initModule(await readImage(path), parameters);
}

function insertFile(path: string, parameters: string, flags: number): number {
  const fd = open(path, O_RDONLY);
  if (fd < 0) return fd;
  try {
    return finitModule(fd, parameters, flags);
  } finally {
    close(fd);
  }
}

/** Why the kernel did not take the module: init_module(2), and kernel/module/ in the kernel's source. */
async function explain(
  path: string,
  number: number,
  parameters: string,
  system: ModuleSystem,
): Promise<Obstacle> {
  switch (number) {
    case errno.ENOEXEC:
      return misfit(path, moduleInfo(await readImage(path)).release, system);
    case errno.ENOENT:
      return { cause: `${path} needs a module that is not there`, remedy: 'see "dmesg", and run "depmod"' };
    case errno.EINVAL: {
      const given = parameters === "" ? "" : ` with ${parameters}`;
      return { cause: `the kernel refuses ${path}${given}`, remedy: 'see "dmesg"' };
    }
    case errno.ENOKEY:
    case errno.EKEYREJECTED:
    case errno.EBADMSG:
      return {
        cause: `the kernel does not trust the signature of ${path}`,
        remedy: "use the modules that came with the kernel, or enrol their key",
      };
    case errno.EPERM:
      return forbidden(path, system);
    default:
      return { cause: `${path}: ${errorText(number)}`, remedy: 'see "dmesg"' };
  }
}

/** @param built what the module was built for. */
function misfit(path: string, built: string | undefined, system: ModuleSystem): Obstacle {
  if (built === undefined) return { cause: `${path} is no kernel module`, remedy: "install it anew" };
  if (built === system.release)
    return { cause: `${path} does not fit this build of the kernel`, remedy: 'see "dmesg"' };
  return {
    cause: `${path} was built for ${built}, and this is ${system.release}`,
    remedy: "install the modules of the running kernel, or boot the one they are for",
  };
}

function forbidden(path: string, system: ModuleSystem): Obstacle {
  const state = readAttribute(`${system.sys}/kernel/security/lockdown`) ?? "";
  const lockdown = /\[(integrity|confidentiality)\]/.exec(state)?.[1];
  if (lockdown !== undefined) {
    return {
      cause: `the kernel is locked down (${lockdown}), and ${path} is not signed`,
      remedy: "use the modules that came with the kernel, or boot without Secure Boot",
    };
  }
  return {
    cause: "this process may not load modules (capability CAP_SYS_MODULE)",
    remedy: "run it as root, outside of a container",
  };
}
