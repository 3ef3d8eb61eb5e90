/** Disks in one object store, ours and s3backer's, each in a form that fio can use. */
import { mkdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Failure } from "../lib/failure.ts";
import { firstLine } from "./load.ts";
import { peakResidentBytes } from "./processes.ts";
import { TSBUSE } from "./servers.ts";

const STOP_LIMIT_MS = 120_000;

/** The address of the store, and its credentials. */
export interface Access {
  readonly endpoint: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly bucket: string;
}

/** A disk with a running server. */
export interface ServedDisk extends AsyncDisposable {
  /** Words of fio's command line for the disk, with up to `depth` requests at once. */
  readonly fio: (depth: number) => readonly string[];
  /** The path of the disk if it is a file. */
  readonly file: string | undefined;
  /** From exec until it accepts requests. */
  readonly readyMs: number;
  peakBytes(): number;
}

/** Starts a server for the disk `name`. */
export type Serve = (name: string, directory: string, size: string, isNew: boolean) => Promise<ServedDisk>;

export function tsbuse({ environment, bucket }: Access): Serve {
  return async (name, directory, size, isNew) => {
    const socket = join(directory, `${name}.sock`);
    const create = isNew ? ["--create", size] : [];
    const begun = performance.now();
    const child = Bun.spawn([TSBUSE, "bucket", `s3://${bucket}/${name}`, `unix:${socket}`, ...create], {
      env: { ...process.env, ...environment },
      stdio: ["ignore", "pipe", "inherit"],
    });
    if ((await firstLine(child.stdout)) === "") throw new Failure("tsbuse does not serve: see above");
    const readyMs = performance.now() - begun;
    return {
      fio: () => ["--ioengine=nbd", `--uri=nbd+unix:///?socket=${socket}`],
      file: undefined,
      readyMs,
      peakBytes: () => peakResidentBytes(child.pid),
      [Symbol.asyncDispose]: async () => {
        child.kill("SIGTERM");
        await ended(child, "tsbuse");
      },
    };
  };
}

/** @param blockSize of its objects, in the form that s3backer accepts. */
export function s3backer(
  { endpoint, environment, bucket }: Access,
  blockSize: string,
  more: readonly string[] = [],
): Serve {
  return async (name, directory, size) => {
    const [mount, keys] = [join(directory, `${name}.mnt`), join(directory, "s3backer.keys")];
    mkdirSync(mount, { recursive: true });
    const { AWS_ACCESS_KEY_ID = "", AWS_SECRET_ACCESS_KEY = "" } = environment;
    writeFileSync(keys, `${AWS_ACCESS_KEY_ID}:${AWS_SECRET_ACCESS_KEY}\n`, { mode: 0o600 });
    const options = [
      `--accessFile=${keys}`,
      `--baseURL=${endpoint}/`,
      `--prefix=${name}-`,
      `--blockSize=${blockSize}`,
      `--size=${size}`,
      // Without a page cache in front of it, as ours is.
      "--directIO",
      "--listBlocks",
      "--force",
      "--quiet",
      "-f",
      ...more,
    ];
    const begun = performance.now();
    const child = Bun.spawn(["s3backer", ...options, bucket, mount], {
      stdio: ["ignore", "ignore", "ignore"],
    });
    const file = join(mount, "file");
    while (!(await Bun.file(file).exists())) {
      if (child.exitCode !== null) throw new Failure(`s3backer does not serve: ${options.join(" ")}`);
      await Bun.sleep(2);
    }
    return {
      // FUSE completes a request during submission, so libaio would not measure how long it took.
      fio: (depth) => [`--ioengine=${depth > 1 ? "libaio" : "psync"}`, `--filename=${file}`],
      file,
      readyMs: performance.now() - begun,
      peakBytes: () => peakResidentBytes(child.pid),
      [Symbol.asyncDispose]: async () => {
        // It writes what it still holds before it ends.
        Bun.spawnSync(["umount", mount]);
        await ended(child, "s3backer");
      },
    };
  };
}

async function ended(child: Bun.Subprocess, name: string): Promise<void> {
  const late = setTimeout(() => child.kill("SIGKILL"), STOP_LIMIT_MS);
  await child.exited;
  clearTimeout(late);
  if (child.signalCode === "SIGKILL") throw new Failure(`${name} did not end`);
}

/** A job for fio. */
export interface Job {
  readonly mode: "read" | "write" | "randread" | "randwrite";
  readonly blockKib: number;
  readonly depth: number;
  /** The part of the disk that it uses, from the start, and how much it reads or writes, both in bytes. */
  readonly region: number;
  readonly bytes: number;
  /** Flushes after each write. */
  readonly syncs?: true;
}

export interface JobResult {
  /** The duration, including a flush after the last write. */
  readonly seconds: number;
  /** The median of a write and its flush, in milliseconds. */
  readonly syncMs: number;
}

/** Part of fio's output, version 3: milliseconds including the last flush, and nanoseconds. */
interface FioOutput {
  readonly jobs: readonly {
    readonly job_runtime: number;
    readonly write: { readonly clat_ns: { readonly percentile?: Percentiles } };
    readonly sync: { readonly lat_ns: { readonly percentile?: Percentiles } };
  }[];
}

type Percentiles = Readonly<Record<string, number>>;

/** @throws Failure with fio's message. */
export async function runFio(disk: ServedDisk, job: Job, seed: number): Promise<JobResult> {
  const { mode, blockKib, depth, region, bytes, syncs } = job;
  const words = [
    "fio",
    "--name=job",
    "--output-format=json",
    "--refill_buffers",
    "--thread",
    `--randseed=${seed}`,
    ...disk.fio(depth),
    `--rw=${mode}`,
    `--bs=${blockKib}k`,
    `--iodepth=${depth}`,
    `--size=${region}`,
    `--io_size=${bytes}`,
    ...(syncs === true ? ["--fsync=1"] : mode.endsWith("write") ? ["--end_fsync=1"] : []),
  ];
  const child = Bun.spawn(words, { stdio: ["ignore", "pipe", "pipe"] });
  const [text, complaint, status] = await Promise.all([
    child.stdout.text(),
    child.stderr.text(),
    child.exited,
  ]);
  if (status !== 0) throw new Failure(`${words.join(" ")}: ${complaint.trim()}`);
  const output: FioOutput = JSON.parse(text.slice(text.indexOf("{")));
  const [done] = output.jobs;
  const sync = middleOf(done?.write.clat_ns.percentile) + middleOf(done?.sync.lat_ns.percentile);
  return { seconds: (done?.job_runtime ?? 0) / 1000, syncMs: sync / 1e6 };
}

function middleOf(percentiles: Percentiles | undefined): number {
  return percentiles?.["50.000000"] ?? 0;
}

/** Seconds that making an ext4 takes, with discard; through QEMU's FUSE export if the disk is not a file. */
export async function makeFileSystem(disk: ServedDisk, socket: string, directory: string): Promise<number> {
  if (disk.file !== undefined) return secondsOfMkfs(disk.file);
  const file = join(directory, "exported");
  writeFileSync(file, "");
  const before = statSync(file).ino;
  const node = `nbd,node-name=disk,server.type=unix,server.path=${socket},discard=unmap`;
  const fuse = Bun.spawn(
    [
      "qemu-storage-daemon",
      "--blockdev",
      node,
      "--export",
      `fuse,id=file,node-name=disk,mountpoint=${file},writable=on`,
    ],
    { stdio: ["ignore", "ignore", "inherit"] },
  );
  try {
    while (statSync(file).ino === before) {
      if (fuse.exitCode !== null)
        throw new Failure("qemu-storage-daemon does not export the disk: see above");
      await Bun.sleep(5);
    }
    return await secondsOfMkfs(file);
  } finally {
    fuse.kill("SIGTERM");
    await fuse.exited;
  }
}

async function secondsOfMkfs(file: string): Promise<number> {
  const begun = performance.now();
  const made = Bun.spawn(["mkfs.ext4", "-q", "-F", "-E", "discard", file], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  const [complaint, status] = await Promise.all([made.stderr.text(), made.exited]);
  if (status !== 0) throw new Failure(`mkfs.ext4: ${complaint.trim()}`);
  return (performance.now() - begun) / 1000;
}
