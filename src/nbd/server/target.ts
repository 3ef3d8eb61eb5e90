/** Where a server listens: `unix:PATH`, `tcp:HOST:PORT` and the URIs of the NBD project (doc/uri.md). */
import { resolve } from "node:path";
import { UserError } from "../../errors.ts";

export type ServerTarget =
  | { readonly kind: "unix"; readonly path: string; readonly exportName: string | undefined }
  | {
      readonly kind: "tcp";
      readonly host: string;
      readonly port: number;
      readonly exportName: string | undefined;
    };

/** The port that IANA has assigned to NBD. */
const NBD_DEFAULT_PORT = 10_809;
/** Where TCP listens unless the target names a host. */
const LOOPBACK = "127.0.0.1";
/** `sun_path` of unix(7), less its NUL. */
const SOCKET_PATH_BYTES_MAX = 107;

/** Whether the target is one of a server; if not, it is a node. */
export function isServerTarget(target: string): boolean {
  return /^(unix:|tcp:|[a-z+]*nbds?[a-z+]*:)/.test(target);
}

/** @throws UserError if the target is invalid. */
export function parseServerTarget(target: string): ServerTarget {
  if (target.startsWith("unix:")) return unixTarget(target, target.slice("unix:".length), undefined);
  if (target.startsWith("tcp:")) return tcpTarget(target);
  return uriTarget(target);
}

/** The URI that a client on this machine connects to. */
export function targetUri(target: ServerTarget, exportName: string): string {
  const name = encodeURIComponent(exportName);
  if (target.kind === "tcp") return `nbd://${bracketed(target.host)}:${target.port}/${name}`;
  return `nbd+unix:///${name}?socket=${encodeURIComponent(target.path).replaceAll("%2F", "/")}`;
}

function unixTarget(target: string, path: string, exportName: string | undefined): ServerTarget {
  if (path === "")
    throw new UserError(`${target} names no socket: give unix:PATH, such as unix:/run/disk.sock`);
  const absolute = resolve(path);
  if (Buffer.byteLength(absolute) > SOCKET_PATH_BYTES_MAX) {
    throw new UserError(
      `${absolute} is too long for a Unix socket: give a path of at most ${SOCKET_PATH_BYTES_MAX} bytes`,
    );
  }
  return { kind: "unix", path: absolute, exportName };
}

/** `tcp:HOST:PORT`, `tcp:[ADDRESS]:PORT` for IPv6, and `tcp:PORT` on loopback. */
function tcpTarget(target: string): ServerTarget {
  const match = /^tcp:(?:(\[[^\]]+\]|[^:[\]]*):)?(\d+)$/.exec(target);
  const port = Number(match?.[2]);
  if (match === null || !(port <= 65_535)) {
    throw new UserError(`${target} is not an address: give tcp:HOST:PORT, such as tcp:127.0.0.1:10809`);
  }
  const host = (match[1] ?? "").replaceAll(/[[\]]/g, "");
  return { kind: "tcp", host: host === "" ? LOOPBACK : host, port, exportName: undefined };
}

function uriTarget(target: string): ServerTarget {
  const uri = URL.parse(target);
  if (uri === null || (uri.protocol !== "nbd:" && uri.protocol !== "nbd+unix:")) {
    throw new UserError(`${target} is not an NBD URI that can be served: give nbd://HOST:PORT/ or unix:PATH`);
  }
  const name = decodeName(target, uri.pathname.replace(/^\//, ""));
  // A plus sign is one in a URI; a blank it is in forms alone.
  const query = new URLSearchParams(uri.search.replaceAll("+", "%2B"));
  if (uri.protocol === "nbd+unix:") return unixTarget(target, query.get("socket") ?? "", name);
  const port = uri.port === "" ? NBD_DEFAULT_PORT : Number(uri.port);
  const host = uri.hostname.replaceAll(/[[\]]/g, "");
  return { kind: "tcp", host: host === "" ? LOOPBACK : host, port, exportName: name };
}

function decodeName(target: string, name: string): string | undefined {
  try {
    return name === "" ? undefined : decodeURIComponent(name);
  } catch (error) {
    throw new UserError(`${target} names an export that cannot be decoded: write "%" as %25`, {
      cause: error,
    });
  }
}

function bracketed(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}
