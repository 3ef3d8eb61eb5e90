/** Sizes and counts as people write them. */
import { DEFAULT_BLOCK_SIZE } from "../../device.ts";
import { bytesOf } from "../../values/sizes.ts";
import { UsageError } from "../usage-error.ts";

/**
 * Bytes: `4096`, `512M`, `1.5G`, `64KiB`; units are powers of 1024 and may be lower case.
 * @param what names the value in the message: `SIZE`, `--offset`.
 * @throws UsageError
 */
export function parseSize(text: string, what: string): number {
  const bytes = bytesOf(text);
  if (Number.isNaN(bytes)) {
    throw new UsageError(
      `${what} "${text}" is not a size: give bytes, or a number with K, M, G or T, such as 512M`,
    );
  }
  if (bytes < 0) throw new UsageError(`${what} ${text} is negative: give a size above zero`);
  if (!Number.isSafeInteger(bytes)) {
    throw new UsageError(
      `${what} ${text} is not a whole number of bytes that can be counted: give another size`,
    );
  }
  return bytes;
}

/** A size above zero. @throws UsageError */
export function parsePositiveSize(text: string, what: string): number {
  const bytes = parseSize(text, what);
  if (bytes === 0) throw new UsageError(`${what} is 0: give a size above zero, such as 512M`);
  return bytes;
}

/** A size above zero in whole blocks of `blockSize` bytes. @throws UsageError */
export function parseBlocks(text: string, what: string, blockSize = DEFAULT_BLOCK_SIZE): number {
  const bytes = parsePositiveSize(text, what);
  const above = Math.ceil(bytes / blockSize) * blockSize;
  if (bytes === above) return bytes;
  throw new UsageError(
    `${what} ${text} is not a whole number of blocks of ${blockSize} bytes: give ${above}`,
  );
}

/** The parser of a whole number from `least` to `most`. It throws a UsageError for any other text. */
export function count(least: number, most: number) {
  return (text: string, what: string): number => {
    const number = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (number >= least && number <= most) return number;
    throw new UsageError(`${what} "${text}" is not a whole number from ${least} to ${most}: give one`);
  };
}

const UNITS_MS: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Milliseconds: `90s`, `30m`, `24h`, `7d`, or `0`. @throws UsageError */
export function parseDuration(text: string, what: string): number {
  const [, digits = "", unit = ""] = /^(\d{1,9})([smhd])$/.exec(text) ?? [];
  if (digits !== "") return Number(digits) * (UNITS_MS[unit] ?? 0);
  if (text === "0") return 0;
  throw new UsageError(`${what} "${text}" is not a time: give a number with s, m, h or d, such as 24h`);
}
