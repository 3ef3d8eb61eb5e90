/** The objects that are JSON: what the disk is, and the roots of checkpoints. Each begins with a checksum. */
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
  /** Whose turn it is at number 1 of the log: nobody's, so that the first writer makes a claim as all others do. */
  readonly writer: string;
}

/** From a number on, objects of the log that are in its history bear the name of this writer. */
export interface Turn {
  readonly first: number;
  readonly writer: string;
}

/** The root of a checkpoint. */
export interface RootRecord {
  /** The map has all that is in the log up to this number, and some of what follows, which is to be done again. */
  readonly number: number;
  /** The last one is that of the next number. */
  readonly turns: readonly Turn[];
  readonly pages: readonly string[];
  readonly time: number;
}

export function encodeRecord(record: DiskRecord | RootRecord): Uint8Array<ArrayBuffer> {
  const json = JSON.stringify({ format: FORMAT, version: VERSION, blockSize: BLOCK_BYTES, ...record });
  const checksum = checksumOf(new TextEncoder().encode(json)).toString(16).padStart(CHECKSUM_DIGITS, "0");
  return new TextEncoder().encode(`${checksum}\n${json}\n`);
}

/** What the disk is; undefined where there is none. @throws UserError for what is none of ours. */
export async function readDisk(store: ObjectStore): Promise<DiskRecord | undefined> {
  const found = await readRecord(store, DISK_KEY);
  if (found === undefined) return undefined;
  const { id, size, created, writer } = found;
  if (typeof id === "string" && typeof size === "number" && typeof created === "number")
    if (typeof writer === "string") return { id, size, created, writer };
  throw new UserError(`${store.name}/${DISK_KEY} is invalid: give another prefix`);
}

/** The root of this number; undefined where there is none. */
export async function readRoot(store: ObjectStore, number: number): Promise<RootRecord | undefined> {
  const key = checkpointKey(number);
  const found = await readRecord(store, key);
  if (found === undefined) return undefined;
  const { turns, pages, time } = found;
  if (typeof found["number"] === "number" && typeof time === "number")
    if (Array.isArray(turns) && turns.every(isTurn) && Array.isArray(pages) && pages.every(isText))
      return { number: found["number"], turns, pages, time };
  throw new UserError(`${store.name}/${key} is invalid: another program has written it`);
}

interface Found {
  readonly [name: string]: unknown;
  readonly id?: unknown;
  readonly size?: unknown;
  readonly created?: unknown;
  readonly writer?: unknown;
  readonly turns?: unknown;
  readonly pages?: unknown;
  readonly time?: unknown;
}

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
  return found;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null;
}

function isText(value: unknown): value is string {
  return typeof value === "string";
}

function isTurn(value: unknown): value is Turn {
  return isObject(value) && typeof value["first"] === "number" && typeof value["writer"] === "string";
}
