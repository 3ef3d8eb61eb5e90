/**
 * The objects in JSON: the record of the disk, and the roots of checkpoints and snapshots. Each begins with a checksum.
 */
import { UserError } from "tsbuse";
import { checkpointKey, checksumOf, DamageError, DISK_KEY, FORMAT, VERSION } from "./format.ts";
import { undamaged } from "./log-reader.ts";
import { BLOCK_BYTES, type ObjectStore } from "./parts.ts";

/** The root of the largest disk has about 60 bytes for each of its pages, and as many for each turn. */
const RECORD_BYTES_MAX = 80 * 2 ** 20;
/** The first request asks for this much: the time limit of an answer grows with its length. */
const RECORD_BYTES = 2 ** 20;
const CHECKSUM_DIGITS = 16;

/** What a disk is. It never changes. */
export interface DiskRecord {
  readonly id: string;
  /** In bytes. */
  readonly size: number;
  /** Milliseconds since 1970. */
  readonly created: number;
  /** The writer of the first turn. No process has this name, so the first writer makes a claim like all others. */
  readonly writer: string;
  /** In a clone: the disks that its first segments belong to, by rising numbers. */
  readonly origins?: readonly Origin[];
}

/** A disk that a clone shares segments with. */
export interface Origin {
  /** In the same bucket. Ends with a slash. */
  readonly prefix: string;
  readonly disk: string;
  /** The number of the last shared segment. */
  readonly until: number;
  /** The snapshot of that disk that keeps what is shared. */
  readonly snapshot: string;
}

/** From this number on, objects of the log bear the name of this writer. */
export interface Turn {
  readonly first: number;
  readonly writer: string;
}

/** What checkpoints and snapshots have in common. */
export interface StateRecord {
  /** The map contains the log up to this number. */
  readonly number: number;
  /** The last is the turn of the next number. */
  readonly turns: readonly Turn[];
  readonly pages: readonly string[];
  /** The segments up to `number` that the map names, encoded by {@link runsOf}. */
  readonly segments: readonly number[];
  /** When it was made, in milliseconds since 1970. */
  readonly time: number;
}

/** The root of a checkpoint. */
export interface RootRecord extends StateRecord {
  /** The map may contain some of the log after `number`, up to this number. That part is to be applied again. */
  readonly through: number;
  /** States of the disk are kept from the checkpoint of this number on; 0: from the beginning. */
  readonly oldest: number;
  /** How long every state is kept, in milliseconds. */
  readonly keepMs: number;
}

/** A snapshot. */
export interface SnapshotRecord extends StateRecord {
  /** Its own name: a snapshot that had its name before has another. */
  readonly id: string;
  /** Bytes of mapped blocks. */
  readonly live: number;
  /** The clone that it keeps segments for. */
  readonly clone?: Clone | undefined;
}

export interface Clone {
  /** In the same bucket. Ends with a slash. */
  readonly prefix: string;
  readonly disk: string;
}

/** The {@link VERSION} of the program that wrote the record. */
export interface Versioned {
  readonly version: number;
}

export function encodeRecord(record: DiskRecord | RootRecord | SnapshotRecord): Uint8Array<ArrayBuffer> {
  const json = JSON.stringify({ ...record, format: FORMAT, version: VERSION, blockSize: BLOCK_BYTES });
  const checksum = checksumOf(new TextEncoder().encode(json)).toString(16).padStart(CHECKSUM_DIGITS, "0");
  return new TextEncoder().encode(`${checksum}\n${json}\n`);
}

/** The record of the disk; undefined if there is none. @throws UserError for an object that is not a disk's. */
export async function readDisk(store: ObjectStore): Promise<(DiskRecord & Versioned) | undefined> {
  const found = await readRecord(store, DISK_KEY);
  if (found === undefined) return undefined;
  const { id, size, created, writer, version, origins = [] } = found;
  if (typeof id === "string" && typeof size === "number" && typeof created === "number")
    if (typeof writer === "string" && isArrayOf(origins, isOrigin))
      return { id, size, created, writer, version, origins };
  throw new UserError(`${store.name}/${DISK_KEY} is invalid: give another prefix`);
}

/** The root of this number; undefined if there is none. */
export async function readRoot(
  store: ObjectStore,
  number: number,
): Promise<(RootRecord & Versioned) | undefined> {
  const key = checkpointKey(number);
  const found = await readRecord(store, key);
  if (found === undefined) return undefined;
  const { version } = found;
  const state = stateIn(found, `${store.name}/${key}`);
  // A checkpoint of version 1 has none of these: no state before the next one is kept.
  const { through = Infinity, oldest = number + 1, keepMs = 0 } = found;
  if (typeof through === "number" && typeof oldest === "number" && typeof keepMs === "number")
    return { ...state, through, oldest, keepMs, version };
  throw invalid(`${store.name}/${key}`);
}

/** The snapshot of this key; undefined if there is none. */
export async function readSnapshot(store: ObjectStore, key: string): Promise<SnapshotRecord | undefined> {
  const found = await readRecord(store, key);
  if (found === undefined) return undefined;
  const { id, live, clone } = found;
  const state = stateIn(found, `${store.name}/${key}`);
  if (typeof id === "string" && typeof live === "number" && (clone === undefined || isClone(clone)))
    return { ...state, id, live, clone };
  throw invalid(`${store.name}/${key}`);
}

function stateIn(found: Found, name: string): StateRecord {
  const { number, turns, pages, time, segments = [] } = found;
  if (typeof number === "number" && typeof time === "number" && isArrayOf(turns, isTurn))
    if (isArrayOf(pages, isText) && isArrayOf(segments, isNumber))
      return { number, turns, pages, segments, time };
  throw invalid(name);
}

function invalid(name: string): UserError {
  return new UserError(`${name} is invalid: another program has written it`);
}

type Field = keyof DiskRecord | keyof RootRecord | keyof SnapshotRecord;
type Found = Versioned & { readonly [Name in Field]?: unknown };

async function readRecord(store: ObjectStore, key: string): Promise<Found | undefined> {
  return undamaged(store.name, key, async () => {
    let bytes = await store.get(key, 0, RECORD_BYTES);
    if (bytes?.length === RECORD_BYTES) bytes = await store.get(key, 0, RECORD_BYTES_MAX);
    return bytes === undefined ? undefined : decode(bytes, `${store.name}/${key}`);
  });
}

function decode(bytes: Uint8Array, name: string): Found {
  const text = new TextDecoder().decode(bytes);
  const json = text.slice(CHECKSUM_DIGITS + 1, -1);
  const checksum = checksumOf(new TextEncoder().encode(json)).toString(16).padStart(CHECKSUM_DIGITS, "0");
  if (text.slice(0, CHECKSUM_DIGITS) !== checksum)
    throw new DamageError("is damaged, or another program's: give another prefix");
  const found: unknown = JSON.parse(json);
  if (!isObject(found) || found["format"] !== FORMAT) throw new DamageError("is no object of a disk");
  const version = Number(found["version"]);
  if (version > VERSION)
    throw new UserError(`${name} has format ${version}, newer than ${VERSION}: use a newer tsbuse`);
  return { ...found, version };
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null;
}

function isText(value: unknown): value is string {
  return typeof value === "string";
}

function isNumber(value: unknown): value is number {
  return typeof value === "number";
}

function isArrayOf<T>(value: unknown, isOne: (item: unknown) => item is T): value is readonly T[] {
  return Array.isArray(value) && value.every(isOne);
}

function isClone(value: unknown): value is Clone {
  return isObject(value) && isText(value["prefix"]) && isText(value["disk"]);
}

function isOrigin(value: unknown): value is Origin {
  return isObject(value) && isClone(value) && isNumber(value["until"]) && isText(value["snapshot"]);
}

function isTurn(value: unknown): value is Turn {
  return isObject(value) && typeof value["first"] === "number" && typeof value["writer"] === "string";
}
