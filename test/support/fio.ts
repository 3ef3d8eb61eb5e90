/** fio(1) on a node, around the page cache. */
import { run } from "./shell.ts";

export interface FioReport {
  /** Reads and writes per second. */
  readonly iops: number;
  /** 0 if nothing failed and all verified data was right. */
  readonly errors: number;
  /** fio's messages about errors. */
  readonly messages: string;
}

/** Random writes, each verified afterwards. */
export const VERIFY = [
  "--rw=randwrite",
  "--verify=crc32c",
  "--verify_fatal=1",
  "--verify_state_save=0",
] as const;

const LIMIT_MS = 240_000;

/** Runs one job to its end. */
export function fio(path: string, ...options: string[]): Promise<FioReport> {
  return fioWithin(LIMIT_MS, path, ...options);
}

/** As {@link fio}, for a job that may take longer. */
export async function fioWithin(limitMs: number, path: string, ...options: string[]): Promise<FioReport> {
  const target = [`--filename=${path}`, "--direct=1", "--ioengine=libaio", "--output-format=json"];
  const end = await run(["fio", "--name=job", ...target, ...options], limitMs);
  const job = JSON.parse(end.stdout.slice(end.stdout.indexOf("{"))).jobs[0];
  return {
    iops: job.read.iops + job.write.iops,
    errors: job.error + end.status,
    messages: end.stderr,
  };
}
