/** A layer that records every change to a device with its bytes, for `tsbuse crash`. */
import type { BlockDevice } from "../device.ts";
import { UserError } from "../errors.ts";
import { open } from "../libc/file.ts";
import { kind } from "../record/format.ts";
import { RecordWriter, type RequestNumber } from "../record/writer.ts";
import { O_CREAT, O_NONBLOCK, O_RDWR } from "../uapi/fcntl.ts";
import { bytesOf } from "../values/sizes.ts";
import { around, type Command, type Done } from "./around.ts";
import { fileOption, openFailure } from "./files.ts";
import type { Layer } from "./layer.ts";
import { type NamedLayer, option } from "./options.ts";
import { timed } from "./timed.ts";

const SIZE_DEFAULT = 2 ** 30;

export interface RecordOptions {
  /** The path of a file that does not exist, or is empty. */
  readonly file: string;
  /** The maximum size of the record, in bytes. Default 1 GiB. */
  readonly size?: number | undefined;
  /** Takes the line that says that the record is full, or that writing it failed. Default: none. */
  readonly report?: ((line: string) => void) | undefined;
}

/** The kinds of requests that a record consists of. */
const RECORDED: Partial<Record<Command, (typeof kind)["zero" | "trim" | "flush"]>> = {
  zero: kind.zero,
  trim: kind.trim,
  flush: kind.flush,
};

/** Recorders at work in this process. */
const recorders = new Set<RecordWriter>();

/** Sets a mark in every record of this process. Returns how many took it. */
export function markRecords(text: string): number {
  return [...recorders].filter((recorder) => recorder.mark(text)).length;
}

/**
 * Records every write with its bytes, trims, zeroes and flushes, when they begin and when they are answered. If the
 * record is full, or writing it fails, it ends with a message, and the device keeps serving.
 *
 * A device behind it has no identity, because another process cannot continue a record. It cannot be resized, because a
 * record describes a disk of one size.
 *
 * @throws UserError, when it is put on a device, if the file cannot be opened or is not empty.
 */
export function recordLayer(options: RecordOptions): Layer {
  return (device) => {
    const recorder = openRecord(options, device);
    recorders.add(recorder);
    const {
      identity: _,
      resize: __,
      ...layered
    } = around(
      "record",
      device,
      ({ command, offset, length, fua }, proceed) => {
        const what = RECORDED[command];
        return what === undefined
          ? proceed()
          : recorded(recorder, recorder.begin(what, offset, length, fua), proceed);
      },
      () => {
        recorders.delete(recorder);
        recorder.close();
      },
    );
    const write = layered.write;
    if (write === undefined) return layered;
    return {
      ...layered,
      write: (source, offset, { fua }) =>
        recorded(recorder, recorder.begin(kind.write, offset, source.length, fua, source), () =>
          write(source, offset, { fua }),
        ),
    };
  };
}

function recorded(recorder: RecordWriter, request: RequestNumber, proceed: () => Done): Done {
  return timed(proceed, (_, failure) => recorder.end(request, failure !== undefined));
}

function openRecord({ file, size = SIZE_DEFAULT, report }: RecordOptions, device: BlockDevice): RecordWriter {
  const fd = open(file, O_RDWR | O_CREAT | O_NONBLOCK, 0o600);
  if (fd < 0) throw openFailure(file, fd);
  const shape = { size: device.size, writeThrough: device.flush === undefined, isTrace: false };
  return new RecordWriter(fd, file, shape, { limit: size, report: (line) => report?.(line) });
}

const OPTIONS = {
  file: fileOption("Make the record in FILE, which must not exist", { required: true }),
  size: option({
    value: "SIZE",
    description: "End the record before it is longer than SIZE (default 1G)",
    expects: "a size, such as 512M",
    parse: (text) => {
      const bytes = bytesOf(text);
      return Number.isSafeInteger(bytes) && bytes > 0 ? bytes : undefined;
    },
  }),
};

export const recordNamed: NamedLayer = {
  name: "record",
  summary: "Record all changes, for tsbuse crash",
  options: OPTIONS,
  sparesDevice: false,
  make: (given, { report }) => {
    const file = given(OPTIONS.file);
    if (file === undefined) throw new UserError("layer record needs a file: give record:file=FILE");
    return recordLayer({ file, size: given(OPTIONS.size), report });
  },
};
