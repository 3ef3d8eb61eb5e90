/** Cleaning a disk that nobody has attached. */
import { UserError } from "tsbuse";
import { openBucket } from "./open-bucket.ts";
import type { ObjectStore } from "./parts.ts";
import type { Beside } from "./sources.ts";
import { type Summary, summarize } from "./summary.ts";

export interface CleanOptions {
  /** Though the last owner has not said that it has detached the disk. */
  readonly takeOver: boolean;
  /** Bytes per second that are read at most, and written. */
  readonly bandwidth: number | undefined;
  /** As for {@link openBucket}. */
  readonly beside?: Beside;
  readonly log: (line: string) => void;
}

/**
 * Attaches the disk, cleans it, and detaches it. An owner that is alive cleans by itself, and would lose the disk.
 * @throws UserError where there may be one; ErrnoError when another one takes the disk meanwhile.
 */
export async function cleanBucket(
  store: ObjectStore,
  { takeOver, bandwidth, beside, log }: CleanOptions,
): Promise<{ readonly before: Summary; readonly after: Summary }> {
  const before = await summarize(store);
  const { owner, writer } = before;
  if (owner?.hasEnded === false && !takeOver)
    throw new UserError(
      `${store.name} is in use by ${owner.name}, or that was killed: detach it there, or give --take-over if it has ended`,
    );
  const options = { cleanBandwidth: bandwidth, beside, log };
  const disk = await openBucket(store, takeOver ? options : { ...options, after: writer });
  try {
    await disk.clean();
  } finally {
    await disk.close();
  }
  return { before, after: await summarize(store) };
}
