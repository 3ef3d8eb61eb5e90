/** Adds to a record while the device is in use. Whatever goes wrong with the record, the device goes on without it. */
import { UserError } from "../errors.ts";
import { errorText } from "../libc/errno.ts";
import * as file from "../libc/file.ts";
import { errno } from "../uapi/errno.ts";
import { LOCK_EX, LOCK_NB } from "../uapi/fcntl.ts";
import {
  encodeHead,
  encodeHeader,
  HEAD_BYTES,
  HEADER_BYTES,
  type Kind,
  kind,
  type RecordedDevice,
} from "./format.ts";

/** What an answer is recorded by; 0: nothing was recorded. */
export type RequestNumber = number;

/** Numbers are 32 bits wide, and by the time that one comes again its request has been answered. */
const REQUESTS_MAX = 2 ** 32 - 1;
/** Bytes of a mark. */
export const MARK_MAX = 1024;

interface WriterOptions {
  /** Bytes that the file may have at most. */
  readonly limit: number;
  /** Takes the one line that says why the record has ended. */
  readonly report: (line: string) => void;
}

/** A request that has been answered, in the words of the format. Times are nanoseconds since the record began. */
export interface AnsweredRequest {
  readonly kind: Kind;
  readonly offset: number;
  readonly length: number;
  readonly fua: boolean;
  readonly failed: boolean;
  readonly begun: number;
  readonly done: number;
  /** The bytes of a write, where they are known. Used during the call only. */
  readonly payload?: Uint8Array | undefined;
}

const NANOSECONDS = 1_000_000;

export class RecordWriter {
  readonly #view = new DataView(new ArrayBuffer(HEAD_BYTES));
  readonly #head = new Uint8Array(this.#view.buffer);
  #at = HEADER_BYTES;
  #requests = 0;
  #isRecording = true;
  readonly #start = performance.now();

  /**
   * @param fd of an empty regular file, open for writing; it is this object's from now on.
   * @param path for messages.
   * @throws UserError
   */
  constructor(
    readonly fd: number,
    readonly path: string,
    device: RecordedDevice,
    readonly options: WriterOptions,
  ) {
    const locked = file.flock(fd, LOCK_EX | LOCK_NB);
    const failure =
      locked === -errno.EAGAIN
        ? "is the record of another process: give another name"
        : startFailure(fd, encodeHeader(device));
    if (failure === undefined) return;
    file.close(fd);
    throw new UserError(`${path} ${failure}`);
  }

  /** A change or a flush, before the device is asked. `payload` is used during the call only. */
  begin(what: Kind, offset: number, length: number, fua: boolean, payload?: Uint8Array): RequestNumber {
    return this.#begin(what, this.#now, offset, length, fua, payload);
  }

  /** Its answer, before it is given. */
  end(request: RequestNumber, failed: boolean): void {
    if (request !== 0) this.#append(kind.done, this.#now, request, 0, 0, false, failed);
  }

  /** Of a trace, both at once. Whether it was recorded. */
  answered({ kind: what, offset, length, fua, failed, begun, done, payload }: AnsweredRequest): boolean {
    const request = this.#begin(what, begun, offset, length, fua, payload);
    if (request !== 0) this.#append(kind.done, done, request, 0, 0, false, failed);
    return this.#isRecording;
  }

  /** Of a trace: so many requests are missing from it. `time` as {@link AnsweredRequest} has it. */
  lost(count: number, time: number): boolean {
    this.#append(kind.lost, time, 0, 0, count, false, false);
    return this.#isRecording;
  }

  /** What is checked after a crash can ask for the last one. Whether it was recorded. */
  mark(text: string): boolean {
    this.#append(kind.mark, this.#now, 0, 0, 0, false, false, Buffer.from(text).subarray(0, MARK_MAX));
    return this.#isRecording;
  }

  close(): void {
    this.#isRecording = false;
    // Of a device that could not be attached, say: the next attempt may have the name.
    if (this.#at === HEADER_BYTES) file.ftruncate(this.fd, 0);
    file.close(this.fd);
  }

  get #now(): number {
    return Math.round((performance.now() - this.#start) * NANOSECONDS);
  }

  #begin(
    what: Kind,
    time: number,
    offset: number,
    length: number,
    fua: boolean,
    payload: Uint8Array | undefined,
  ): RequestNumber {
    if (!this.#isRecording) return 0;
    this.#requests = this.#requests === REQUESTS_MAX ? 1 : this.#requests + 1;
    const request = this.#requests;
    this.#append(what, time, request, offset, length, fua, false, payload);
    return request;
  }

  #append(
    what: Kind,
    time: number,
    request: RequestNumber,
    offset: number,
    length: number,
    fua: boolean,
    failed: boolean,
    source?: Uint8Array,
  ): void {
    if (!this.#isRecording) return;
    const payload = source?.length ?? 0;
    const { limit } = this.options;
    if (this.#at + HEAD_BYTES + payload > limit)
      return this.#stop(`has its ${limit} bytes`, "give it a larger size=");
    encodeHead(this.#view, { kind: what, time, request, payload, offset, length, fua, failed }, source);
    if (
      this.#write(this.#head, this.#at) &&
      (source === undefined || this.#write(source, this.#at + HEAD_BYTES))
    )
      this.#at += HEAD_BYTES + payload;
  }

  #write(bytes: Uint8Array, at: number): boolean {
    const written = bytes.length === 0 ? 0 : file.pwrite(this.fd, bytes, at);
    if (written === bytes.length) return true;
    // Whoever reads the file would find the rest of a record by itself; the space is what is given back.
    file.ftruncate(this.fd, this.#at);
    this.#stop(
      `cannot be added to (${errorText(written < 0 ? -written : errno.ENOSPC)})`,
      "choose another place",
    );
    return false;
  }

  #stop(reason: string, remedy: string): void {
    this.#isRecording = false;
    this.options.report(
      `record: ${this.path} ${reason}: it ends here, and can be used up to here; ${remedy} for a longer one`,
    );
  }
}

/** What is wrong with the file; undefined: nothing, and it has its header. */
function startFailure(fd: number, header: Uint8Array): string | undefined {
  const there = file.pread(fd, new Uint8Array(1), 0);
  if (there === -errno.ESPIPE) return "is not a regular file: give another name";
  if (there > 0) return "is there already: give another name, or remove it first";
  const written = there < 0 ? there : file.pwrite(fd, header, 0);
  if (written === header.length) return undefined;
  return `cannot be written (${errorText(written < 0 ? -written : errno.ENOSPC)}): choose another place`;
}
