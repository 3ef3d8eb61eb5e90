/** Records made without a device, for tests of the code that reads records. */
import { open } from "../../src/libc/file.ts";
import { kind } from "../../src/record/format.ts";
import { RecordWriter } from "../../src/record/writer.ts";
import { O_CREAT, O_RDWR } from "../../src/uapi/fcntl.ts";

export function startRecord(path: string, size: number, limit = 2 ** 24, writeThrough = false): RecordWriter {
  return new RecordWriter(
    open(path, O_RDWR | O_CREAT, 0o600),
    path,
    { size, writeThrough, isTrace: false },
    {
      limit,
      report: () => undefined,
    },
  );
}

/** `count` sectors filled with numbers that tell them apart. */
export function sectors(first: number, count: number, value: number): Uint8Array {
  const bytes = new Uint8Array(count * 512);
  for (let index = 0; index < count; index += 1)
    bytes.fill(value * 16 + first + index, index * 512, index * 512 + 512);
  return bytes;
}

/** Records a write that is answered at once. */
export function wrote(record: RecordWriter, offset: number, bytes: Uint8Array, fua = false): void {
  record.end(record.begin(kind.write, offset, bytes.length, fua, bytes), false);
}

export function flushed(record: RecordWriter): void {
  record.end(record.begin(kind.flush, 0, 0, false), false);
}
