/** Sizes as people write them. */

const UNITS: Readonly<Record<string, number>> = {
  "": 1,
  K: 2 ** 10,
  M: 2 ** 20,
  G: 2 ** 30,
  T: 2 ** 40,
  P: 2 ** 50,
};

/**
 * Bytes: `4096`, `512M`, `1.5G`, `64KiB`; units are powers of 1024 and may be lower case. NaN if it is not a size. The
 * result may be negative or fractional.
 */
export function bytesOf(text: string): number {
  const match = /^([+-]?\d+(?:\.\d+)?)\s*(?:([kmgtp])(?:i?b)?|b)?$/i.exec(text.trim());
  return Number(match?.[1] ?? Number.NaN) * (UNITS[(match?.[2] ?? "").toUpperCase()] ?? Number.NaN);
}
