import { existsSync, realpathSync } from "node:fs";
import { ChunkCache } from "../../../devices/bucket/cache.ts";
import type { BucketDisk } from "../../../devices/bucket/device.ts";
import { LateDisk } from "../../../devices/bucket/late-disk.ts";
import { openBucket } from "../../../devices/bucket/open-bucket.ts";
import { JournalFile } from "../../../devices/bucket/journal-file.ts";
import { BLOCK_BYTES } from "../../../devices/bucket/parts.ts";
import { parsePoint, type Point } from "../../../devices/bucket/points.ts";
import { ACCESS, BANDWIDTH, storeAt, tell, URI } from "../bucket/access.ts";
import { deviceCommand } from "../command.ts";
import { anyText, flag, option } from "../options/argument.ts";
import { TARGET } from "../options/serving.ts";
import { parseBlocks, parseDuration, parsePositiveSize } from "../options/values.ts";
import { isDaemonChild, startDaemon } from "../serving/daemon.ts";
import { serveCommand } from "../serving/serve-command.ts";
import { UsageError } from "../usage-error.ts";

const CACHE_BYTES = 2 ** 30;
const FLUSH_PLACES = ["store", "disk"] as const;
type FlushPlace = (typeof FLUSH_PLACES)[number];
/** How long a process that is ending may take to release the cache directory. */
const CACHE_WAIT_MS = 10_000;
const NOT_FOR_SWAP = 'the network waits for memory: give "loop DISK --direct"';

export default deviceCommand(
  {
    name: "bucket",
    summary: "A disk in an S3-compatible object store",
    synopsis: "URI TARGET",
    details: [
      "URI is s3://BUCKET/PREFIX. The disk is a log of objects below PREFIX, each created once by a PUT that must not replace anything (If-None-Match: *); a store that does not support this is refused. A flush completes when everything written before it is in the bucket. The bucket always holds a prefix of what was written, in order. Up to 56 MiB of unflushed writes are in memory, and a process that ends without a flush loses them. With --recover or --resume a write is answered when it is in the bucket.",
      "With --flush disk a flush completes when everything written before it is in the local journal, by fdatasync, and --recover answers a write when it is written to the journal. Always attach the disk with the same journal on this machine: writes that the bucket lacks are sent there first, and nothing that was flushed is lost. A machine without the journal finds a prefix of what was written, in order, perhaps without the last flushes; if it takes the disk over, a journal that holds more is refused from then on, and left as it is.",
      "Whoever attaches the disk takes it over: the previous process, here or on another machine, answers every write with an error from then on, and names the new owner. With --read-only the disk is shown as it is at that moment, and its owner keeps it.",
      'With --at it is shown, read-only, as it was: at a snapshot (see "tsbuse bucket-snapshot"), at a time such as 2026-01-31T12:00 (local, or with Z for UTC), or up to a number of its log. Times and numbers reach back to the last checkpoint, or as far as --keep says.',
      "If the store is away, or permission is lost, tsbuse waits; --request-timeout limits how long requests wait. Credentials come from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT, or the same with S3_ in place of AWS_. The data is not encrypted: put LUKS on the device.",
    ],
    examples: [
      { line: "tsbuse bucket s3://backup/db /dev/nbd0 --create 1T", does: "a new disk, empty" },
      { line: "tsbuse bucket s3://backup/db auto", does: "the same disk, on this machine or another one" },
      {
        line: "tsbuse bucket s3://backup/db auto --read-only",
        does: "as it is now, while another one writes",
      },
      {
        line: "tsbuse bucket s3://backup/db auto --at 2026-01-31T12:00",
        does: "as it was then, if it is attached with --keep",
      },
    ],
  },
  {
    uri: URI,
    target: TARGET,
    create: option({
      valueHint: "SIZE",
      description: "Make the disk; nothing must lie below PREFIX",
      parse: (text, what) => parseBlocks(text, what, BLOCK_BYTES),
    }),
    cache: option({
      valueHint: "DIR",
      description: "Keep what was read in a local directory, of this disk alone; it may vanish at any time",
      parse: anyText,
    }),
    cacheSize: option({
      valueHint: "BYTES",
      description: "How much the directory holds at most (default 1G)",
      parse: parsePositiveSize,
    }),
    flush: option({
      valueHint: "PLACE",
      words: FLUSH_PLACES,
      description:
        "When a flush is done: when it is in the store, or in the journal on this disk (default store)",
      parse: flushPlace,
    }),
    journal: option({
      valueHint: "DIR",
      description: "Directory of the journal of --flush disk, of this disk alone; takes 112 MiB",
      parse: anyText,
    }),
    noCompression: flag("Store the data as it is, and not as zstd where that is smaller"),
    at: option({
      valueHint: "POINT",
      description: "Show the disk as it was, read-only: a snapshot, a time, or a number of the log",
      parse: parsePoint,
    }),
    keep: option({
      valueHint: "TIME",
      description: "Keep every state of the disk for this long, such as 24h or 7d; remembered; 0 ends it",
      parse: parseDuration,
    }),
    cleanBandwidth: BANDWIDTH,
    ...ACCESS,
  },
  async (
    {
      uri,
      target,
      create,
      cache,
      cacheSize = CACHE_BYTES,
      flush,
      journal,
      noCompression,
      at,
      keep,
      cleanBandwidth,
      ...access
    },
    options,
  ) => {
    const store = storeAt(uri, access);
    const readOnly = options.readOnly || options.stack.sparesDevice || at !== undefined;
    mustGoTogether({ at, create, keep, flush, journal }, readOnly, options.takeOver);
    if (options.daemon && !isDaemonChild()) return startDaemon(options.initrd);
    // Before a node is touched, and while a signal still ends the program: a store may be slow.
    const open = async (): Promise<BucketDisk> => {
      const disk = await openBucket(store, {
        create,
        cache: cache === undefined ? undefined : await openCache(cache, cacheSize, store.name),
        readOnly,
        at,
        keepMs: keep,
        cleanBandwidth,
        journal: journal === undefined ? undefined : await JournalFile.open(journal),
        beside: (prefix) => store.beside(prefix),
        // A node that is handed over waits for its next server as well.
        writeThrough: options.recover || options.resume || options.takeOver,
        writer: { compress: !noCompression },
        log: tell,
      });
      store.patience.isEndless = true;
      return disk;
    };
    const isLate = options.takeOver && !readOnly;
    const device = isLate ? await LateDisk.of(store, journal && nameOf(journal), open) : await open();
    return serveCommand(target, options, () => ({ device, needsEventLoop: true, whyNoSwap: NOT_FOR_SWAP }));
  },
);

/** The name that {@link JournalFile} gives it. A missing directory cannot be the previous process's journal. */
function nameOf(journal: string): string {
  return existsSync(journal) ? realpathSync(journal) : journal;
}

interface Chosen {
  readonly at: Point | undefined;
  readonly create: number | undefined;
  readonly keep: number | undefined;
  readonly flush: FlushPlace | undefined;
  readonly journal: string | undefined;
}

/** @throws UsageError */
function mustGoTogether(
  { at, create, keep, flush, journal }: Chosen,
  readOnly: boolean,
  takesOver: boolean,
): void {
  if (at !== undefined && create !== undefined)
    throw new UsageError("a new disk has no past: leave out --at");
  if (readOnly && keep !== undefined)
    throw new UsageError("--keep is for the owner of the disk: leave it out where nothing is written");
  if ((flush === "disk") !== (journal !== undefined))
    throw new UsageError('a journal needs both options: give "--flush disk --journal DIR"');
  if (journal !== undefined && readOnly)
    throw new UsageError("a disk that is not written to needs no journal: leave out --flush and --journal");
  if (takesOver && create !== undefined)
    throw new UsageError("a disk that is handed over is there already: leave out --create");
}

function flushPlace(text: string, what: string): FlushPlace {
  const found = FLUSH_PLACES.find((place) => place === text);
  if (found === undefined) throw new UsageError(`${what} "${text}" is invalid: give store or disk`);
  return found;
}

/** @throws UserError */
function openCache(directory: string, bytes: number, disk: string): Promise<ChunkCache> {
  return ChunkCache.whenFree({ directory, bytes, disk, report: tell }, CACHE_WAIT_MS);
}
