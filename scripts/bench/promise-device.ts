/** A store in memory for the benchmark, which starts it with `tsbuse run`. Its methods return promises, or do not. */
import type { BlockDevice, OptionTable, OptionValues } from "tsbuse";

const SIZE = 256 * 2 ** 20;
const SLEEP_MS = 10;

export const options = { kind: { type: "string" } } as const satisfies OptionTable;

export default function makeDevice({ kind }: OptionValues<typeof options>): BlockDevice {
  const bytes = new Uint8Array(SIZE);
  const read = (target: Uint8Array, offset: number): void =>
    target.set(bytes.subarray(offset, offset + target.length));
  const write = (source: Uint8Array, offset: number): void => bytes.set(source, offset);
  const readAsync = async (target: Uint8Array, offset: number): Promise<void> => read(target, offset);
  const writeAsync = async (source: Uint8Array, offset: number): Promise<void> => write(source, offset);
  switch (kind) {
    case "synchronous":
      return { size: SIZE, read, write };
    case "promises":
      return { size: SIZE, read: readAsync, write: writeAsync };
    default:
      return { size: SIZE, read: (...range) => Bun.sleep(SLEEP_MS).then(() => read(...range)), write };
  }
}
