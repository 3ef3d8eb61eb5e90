/** A device as "top" shows it in one tick, on the screen and in JSON. */
import { statSync } from "node:fs";
import { basename } from "node:path";
import { holdersOf, mountsOf } from "../../nodes/node-state.ts";
import type { Kind } from "../../queues/ledger.ts";
import { errorsOf, type Rates, ratesOf } from "./rates.ts";
import type { Seen } from "./watched.ts";

/** `new`: nothing to compare with yet. `silent`: it owes an answer. `other`: it cannot report statistics. */
export type State = "serving" | "new" | "silent" | "other";

export interface DeviceState {
  /** The node, or the URI of a server; undefined for a process that has not reported what it serves. */
  readonly path: string | undefined;
  readonly pid: number;
  /** The user of the process; undefined if it is in another PID namespace. */
  readonly uid: number | undefined;
  readonly driver: "nbd" | "ublk" | "server" | undefined;
  readonly state: State;
  /** How long it has not answered, and why there are no rates. */
  readonly silentSeconds: number;
  readonly reason: string | undefined;
  readonly version: string | undefined;
  /** The words of its command line, after `tsbuse`. */
  readonly words: readonly string[];
  readonly size: number | undefined;
  readonly readOnly: boolean;
  readonly mounts: readonly string[];
  readonly holders: readonly string[];
  readonly queues: number;
  readonly inFlight: number;
  readonly rates: Rates | undefined;
  /** Errors since the start, by the name of the errno. */
  readonly errorsTotal: Readonly<Record<string, number>>;
  readonly oldest:
    | { readonly kind: Kind; readonly offset: number; readonly length: number; readonly seconds: number }
    | undefined;
}

/** A process that takes longer to answer counts as silent, in milliseconds. */
export const GRACE_MS = 500;

export function deviceState(seen: Seen): DeviceState {
  const { path, socket, latest, earlier, askedAt, refusal } = seen;
  const owedMs = askedAt === undefined ? 0 : performance.now() - askedAt;
  const isSilent = owedMs >= GRACE_MS;
  const state = isSilent
    ? "silent"
    : latest === undefined
      ? refusal === undefined
        ? "new"
        : "other"
      : earlier === undefined
        ? "new"
        : "serving";
  const name = path?.startsWith("/dev/") === true ? basename(path) : undefined;
  const oldest = isSilent ? undefined : latest?.oldest;
  return {
    path,
    pid: socket.pid,
    uid: socket.isNear ? uidOf(socket.pid) : undefined,
    driver: driverOf(path),
    state,
    silentSeconds: isSilent ? owedMs / 1000 : 0,
    reason: refusal,
    version: latest?.status.version,
    words: latest?.status.words ?? [],
    size: latest?.status.size,
    readOnly: latest?.status.readOnly === true,
    mounts: name === undefined ? [] : mountsOf(name),
    holders: name === undefined ? [] : holdersOf(name),
    queues: latest?.queues ?? 0,
    inFlight: latest?.status.inFlight ?? 0,
    rates:
      state === "serving" && latest !== undefined && earlier !== undefined
        ? ratesOf(latest, earlier)
        : undefined,
    errorsTotal: latest === undefined ? {} : errorsOf(latest.cells),
    oldest: oldest && {
      kind: oldest.kind,
      offset: oldest.offset,
      length: oldest.length,
      seconds: oldest.ageMs / 1000,
    },
  };
}

function driverOf(path: string | undefined): DeviceState["driver"] {
  if (path === undefined) return undefined;
  if (path.startsWith("/dev/ublk")) return "ublk";
  return path.startsWith("/dev/nbd") ? "nbd" : "server";
}

function uidOf(pid: number): number | undefined {
  return statSync(`/proc/${pid}`, { throwIfNoEntry: false })?.uid;
}

/** One object for a tick: see "tsbuse top --help". @param seconds since the previous tick. */
export function tickJson(devices: readonly DeviceState[], seconds: number): string {
  return JSON.stringify({
    time: new Date().toISOString(),
    seconds,
    devices: devices.map(({ rates, path, uid, driver, reason, version, size, oldest, ...device }) => ({
      path: path ?? null,
      driver: driver ?? null,
      uid: uid ?? null,
      version: version ?? null,
      size: size ?? null,
      reason: reason ?? null,
      ...device,
      oldest: oldest ?? null,
      rates: rates ?? null,
    })),
  });
}
