/**
 * Where the sockets are by which serving processes are asked things: a file for each, named after its process. Only who
 * may write to it can connect, which is its owner, and root.
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

/** As root's processes have it; others have one of their own, where there is one. */
const DIRECTORY = "/run/tsbuse";
const SOCKET = /^(\d+)(-\d+)?\.sock$/;
/** Nobody looks for it under this name. */
const UNFINISHED = ".new";

/** A process that may be serving a device. */
export interface ControlSocket {
  readonly path: string;
  /** As it is known in its PID namespace. */
  readonly pid: number;
  /** Whether that is this process's namespace: elsewhere the number is another process's, or nobody's. */
  readonly isNear: boolean;
}

/** A socket that listens, which did not wait to be found. */
export interface Listening {
  readonly fd: number;
  /** In the root that this process was started in. */
  readonly path: string;
}

/** Undefined where this user has none. */
function directory(): string | undefined {
  if (process.geteuid?.() === 0) return DIRECTORY;
  const own = process.env["XDG_RUNTIME_DIR"];
  return own === undefined || own === "" ? undefined : `${own}/tsbuse`;
}

/**
 * Makes this process's own socket. Undefined where there is no /run, as in an initramfs that has mounted none.
 * @throws Error when it cannot be made.
 */
export function makeSocket(): Listening | undefined {
  const where = directory();
  if (where === undefined || !makeDirectory(where)) return undefined;
  sweep();
  const path = `${where}/${ownName()}`;
  // It is found once it listens: one that does not is taken for one whose process is gone.
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

/** All that there are. Those of processes that are gone are removed. */
export function controlSockets(): ControlSocket[] {
  sweep();
  return knownSockets();
}

/** As {@link controlSockets}, for who looks often: those of processes that are gone are there until somebody sweeps. */
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

/** The number of a process is another one's in another PID namespace, and /run may be shared with that. */
function ownName(): string {
  return `${process.pid}${ownNamespace()}.sock`;
}

/** Of a PID namespace other than the first: its number, as it is in names. */
function ownNamespace(): string {
  const namespace = isInitialPidNamespace() ? undefined : linkTarget("/proc/self/ns/pid");
  const number = /\d+/.exec(namespace ?? "")?.[0];
  return number === undefined ? "" : `-${number}`;
}

/** Returns whether it is there. @throws Error when it cannot be made though what it is to lie in is there. */
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

/** Nobody listens at a socket whose process is gone, which no other process can undo. */
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
    // On a file system that is read-only by now, say: it harms nobody.
  }
}
