/** One step of a check, as plain data, so that a sequence can be repeated and shortened. */

/** Offsets and lengths are bytes, whole blocks. `fill` picks the bytes: byte `offset` is byte `fill` +
 * `offset` of the noise. */
export type Operation =
  | { readonly kind: "read"; readonly offset: number; readonly length: number }
  | {
      readonly kind: "write";
      readonly offset: number;
      readonly length: number;
      readonly fua: boolean;
      readonly fill: number;
    }
  | { readonly kind: "trim"; readonly offset: number; readonly length: number; readonly fua: boolean }
  | {
      readonly kind: "writeZeroes";
      readonly offset: number;
      readonly length: number;
      readonly fua: boolean;
      readonly mayTrim: boolean;
    }
  | { readonly kind: "extents"; readonly offset: number; readonly length: number }
  | { readonly kind: "flush" }
  /** Waits until no request is in flight, and a little longer. */
  | { readonly kind: "wait" }
  /** Waits, flushes, closes the device and makes it anew. */
  | { readonly kind: "reopen" }
  /** Waits, drops the device without a flush or a close, and makes it anew. */
  | { readonly kind: "crash" };

export type RangeOperation = Extract<Operation, { readonly offset: number }>;

export function hasRange(operation: Operation): operation is RangeOperation {
  return "offset" in operation;
}

/** Whether two operations must not be in flight together: they overlap, and one of them changes data. */
export function conflict(one: Operation, other: Operation): boolean {
  if (!hasRange(one) || !hasRange(other)) return false;
  if (!changes(one) && !changes(other)) return false;
  return one.offset < other.offset + other.length && other.offset < one.offset + one.length;
}

export function changes(operation: Operation): boolean {
  return operation.kind === "write" || operation.kind === "trim" || operation.kind === "writeZeroes";
}

/** `write offset 512 length 4096 fua`. */
export function describe(operation: Operation): string {
  const words: string[] = [operation.kind];
  if (hasRange(operation)) words.push(`offset ${operation.offset} length ${operation.length}`);
  if ("fua" in operation && operation.fua) words.push("fua");
  if ("mayTrim" in operation && operation.mayTrim) words.push("may-trim");
  return words.join(" ");
}
