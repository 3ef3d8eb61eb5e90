/**
 * Where serving processes have their control sockets: one file for each, named after its process. Only its owner and
 * root may write to it, and so connect.
 */
import { chmodSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { unwrap } from "../libc/errno.ts";
import { close } from "../libc/file.ts";
import { listenUnix } from "../libc/listen.ts";
import { inCurrentRoot } from "../libc/root.ts";
import { tryUnix } from "../libc/socket.ts";
import { attributeNames } from "../libc/sysfs.ts";
import { isInitialPidNamespace, linkTarget } from "../nodes/openers.ts";
import { errno } from "../uapi/errno.ts";

/** The directory of root's processes. Other users have one of their own, if the system makes one for them. */
const DIRECTORY = "/run/tsbuse";
const SOCKET = /^(\d+)(-\d+)?\.sock$/;
/** A name that no client looks for. */
const UNFINISHED = ".new";

/** A process that may be serving a device. */
export interface ControlSocket {
  readonly path: string;
  /** The process ID in its own PID namespace. */
  readonly pid: number;
  /** Whether that is this process's namespace: in another one, the number belongs to another process, or to none. */
  readonly isNear: boolean;
}

/** A listening socket. */
export interface Listening {
  readonly fd: number;
  /** In the root that this process was started in. */
  readonly path: string;
}

/** Undefined if this user has none. */
function directory(): string | undefined {
  if (process.geteuid?.() === 0) return DIRECTORY;
  const own = process.env["XDG_RUNTIME_DIR"];
  return own === undefined || own === "" ? undefined : `${own}/tsbuse`;
}

/**
 * Makes this process's own socket. Undefined if there is no /run, as in an initramfs that has not mounted it.
 * @throws Error if that fails.
 */
export function makeSocket(): Listening | undefined {
  const where = directory();
  if (where === undefined || !makeDirectory(where)) return undefined;
  sweep();
  const path = `${where}/${ownName()}`;
  // It gets its name once it listens: clients take a socket that does not listen for one whose process is gone.
  const unfinished = path + UNFINISHED;
  rmSync(unfinished, { force: true });
  const fd = unwrap(listenUnix(unfinished), `socket ${path}`);
  try {
    chmodSync(unfinished, 0o600);
    renameSync(unfinished, path);
    return { fd, path };
  } catch (error) {
    rmSync(unfinished, { force: true });
    close(fd);
    throw error;
  }
}

/** Returns why it is still there, else undefined. */
export function removeSocket({ fd, path }: Listening): string | undefined {
  close(fd);
  try {
    rmSync(inCurrentRoot(path), { force: true });
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** All sockets. Those of processes that are gone are removed. */
export function controlSockets(): ControlSocket[] {
  sweep();
  return knownSockets();
}

/** As {@link controlSockets}, for frequent looks: does not remove the sockets of processes that are gone. */
export function knownSockets(): ControlSocket[] {
  const where = directory();
  if (where === undefined) return [];
  const near = ownNamespace();
  return attributeNames(where).flatMap((name) => {
    const [, pid, namespace = ""] = SOCKET.exec(name) ?? [];
    if (pid === undefined) return [];
    return [{ path: inCurrentRoot(`${where}/${name}`), pid: Number(pid), isNear: namespace === near }];
  });
}

/** PID namespaces that share /run may use the same number for different processes. */
function ownName(): string {
  return `${process.pid}${ownNamespace()}.sock`;
}

/** The number of this PID namespace as it appears in file names; empty for the initial one. */
function ownNamespace(): string {
  const namespace = isInitialPidNamespace() ? undefined : linkTarget("/proc/self/ns/pid");
  const number = /\d+/.exec(namespace ?? "")?.[0];
  return number === undefined ? "" : `-${number}`;
}

/** Makes the directory. Returns false if its parent is missing. @throws Error if it fails for another reason. */
function makeDirectory(path: string): boolean {
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ENOENT") return false;
    if (code !== "EEXIST") throw error;
  }
  return true;
}

/** A connection is refused once the process is gone. No other process can listen on its socket. */
function sweep(): void {
  for (const { path } of knownSockets()) {
    const fd = tryUnix(path);
    if (fd >= 0) close(fd);
    else if (fd === -errno.ECONNREFUSED) removeStale(path);
  }
}

function removeStale(path: string): void {
  try {
    rmSync(path, { force: true });
  } catch {
    // The file system is read-only by now, for example. A stale socket does no harm.
  }
}
