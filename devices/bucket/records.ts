/** The objects that are JSON: what the disk is, roots of checkpoints and of snapshots. Each begins with a checksum. */
import { UserError } from "tsbuse";
import { checkpointKey, checksumOf, DamageError, DISK_KEY, FORMAT, VERSION } from "./format.ts";
import { undamaged } from "./log-reader.ts";
import { BLOCK_BYTES, type ObjectStore } from "./parts.ts";

/** The root of the largest disk has about 60 bytes for each of its pages, and as many for each turn. */
const RECORD_BYTES_MAX = 80 * 2 ** 20;
/** What is asked for at first: an answer may take longer the more may come. */
const RECORD_BYTES = 2 ** 20;
const CHECKSUM_DIGITS = 16;

/** What a disk is; it never changes. */
export interface DiskRecord {
  readonly id: string;
  /** Bytes. */
  readonly size: number;
  /** Milliseconds since 1970. */
  readonly created: number;
  /** Whose turn it is where the log begins: nobody's, so that the first writer makes a claim as all others do. */
  readonly writer: string;
  /** Of a clone: the disks that its first segments are of. By rising numbers. */
  readonly origins?: readonly Origin[];
}

/** A disk that a clone shares segments with. */
export interface Origin {
  /** In the same bucket, with a slash at its end. */
  readonly prefix: string;
  readonly disk: string;
  /** The number of the last segment that is shared. */
  readonly until: number;
  /** The snapshot there that keeps what is shared. */
  readonly snapshot: string;
}

/** From a number on, objects of the log that are in its history bear the name of this writer. */
export interface Turn {
  readonly first: number;
  readonly writer: string;
}

/** What a checkpoint and a snapshot have in common. */
export interface StateRecord {
  /** The map has all that is in the log up to this number. */
  readonly number: number;
  /** The last one is that of the next number. */
  readonly turns: readonly Turn[];
  readonly pages: readonly string[];
  /** The segments up to `number` that the map names, as {@link runsOf} has them. */
  readonly segments: readonly number[];
  /** Milliseconds since 1970, when it was made. */
  readonly time: number;
}

/** The root of a checkpoint. */
export interface RootRecord extends StateRecord {
  /** The map may have some of what follows `number`, up to this one: that is to be done again. */
  readonly through: number;
  /** The states of the disk are kept from the checkpoint of this number on; 0: from the beginning. */
  readonly oldest: number;
  /** How long every state is kept, in milliseconds. */
  readonly keepMs: number;
}

/** A snapshot. */
export interface SnapshotRecord extends StateRecord {
  /** Its own, other than that of any snapshot that had its name before. */
  readonly id: string;
  /** Bytes of blocks that are no holes. */
  readonly live: number;
  /** The clone that it keeps segments for. */
  readonly clone?: Clone | undefined;
}

export interface Clone {
  /** In the same bucket, with a slash at its end. */
  readonly prefix: string;
  readonly disk: string;
}

/** Of what was read: the {@link VERSION} of the program that has written it. */
export interface Versioned {
  readonly version: number;
}

export function encodeRecord(record: DiskRecord | RootRecord | SnapshotRecord): Uint8Array<ArrayBuffer> {
  const json = JSON.stringify({ ...record, format: FORMAT, version: VERSION, blockSize: BLOCK_BYTES });
  const checksum = checksumOf(new TextEncoder().encode(json)).toString(16).padStart(CHECKSUM_DIGITS, "0");
  return new TextEncoder().encode(`${checksum}\n${json}\n`);
}

/** What the disk is; undefined where there is none. @throws UserError for what is none of ours. */
export async function readDisk(store: ObjectStore): Promise<(DiskRecord & Versioned) | undefined> {
  const found = await readRecord(store, DISK_KEY);
  if (found === undefined) return undefined;
  const { id, size, created, writer, version, origins = [] } = found;
  if (typeof id === "string" && typeof size === "number" && typeof created === "number")
    if (typeof writer === "string" && isArrayOf(origins, isOrigin))
      return { id, size, created, writer, version, origins };
  throw new UserError(`${store.name}/${DISK_KEY} is invalid: give another prefix`);
}

/** The root of this number; undefined where there is none. */
export async function readRoot(
  store: ObjectStore,
  number: number,
): Promise<(RootRecord & Versioned) | undefined> {
  const key = checkpointKey(number);
  const found = await readRecord(store, key);
  if (found === undefined) return undefined;
  const { version } = found;
  const state = stateIn(found, `${store.name}/${key}`);
  // A checkpoint of version 1 tells neither: no state before the next one is kept.
  const { through = Infinity, oldest = number + 1, keepMs = 0 } = found;
  if (typeof through === "number" && typeof oldest === "number" && typeof keepMs === "number")
    return { ...state, through, oldest, keepMs, version };
  throw invalid(`${store.name}/${key}`);
}

/** The snapshot of this key; undefined where there is none. */
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
