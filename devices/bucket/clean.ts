/** Cleans a disk that nobody has attached. */
import { UserError } from "tsbuse";
import { openBucket } from "./open-bucket.ts";
import type { ObjectStore } from "./parts.ts";
import type { Beside } from "./sources.ts";
import { type Summary, summarize } from "./summary.ts";

export interface CleanOptions {
  /** Clean even if the last owner has not noted that it detached the disk. */
  readonly takeOver: boolean;
  /** The most bytes per second to read, and to write. */
  readonly bandwidth: number | undefined;
  /** As for {@link openBucket}. */
  readonly beside?: Beside;
  readonly log: (line: string) => void;
}

/**
 * Attaches the disk, cleans it, and detaches it. A running owner cleans by itself, and would lose the disk.
 * @throws UserError where there may be one; ErrnoError when another owner takes the disk over meanwhile.
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
