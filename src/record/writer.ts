/** Appends to a record while the device is in use. If the record fails, the device keeps serving without it. */
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

/** The number that links an answer to its request; 0 if the request was not recorded. */
export type RequestNumber = number;

/** Numbers have 32 bits. By the time a number is used again, its first request has been answered. */
const REQUESTS_MAX = 2 ** 32 - 1;
/** Bytes of a mark. */
export const MARK_MAX = 1024;

interface WriterOptions {
  /** The maximum size of the file, in bytes. */
  readonly limit: number;
  /** Takes the line that says why the record has ended. */
  readonly report: (line: string) => void;
}

/** A request that has been answered, in the format's terms. Times are nanoseconds since the record began. */
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
   * @param fd of an empty regular file, open for writing; this object owns it from now on.
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

  /** Records a change or a flush, before the device is called. `payload` is used during the call only. */
  begin(what: Kind, offset: number, length: number, fua: boolean, payload?: Uint8Array): RequestNumber {
    return this.#begin(what, this.#now, offset, length, fua, payload);
  }

  /** Records its answer, before that is given. */
  end(request: RequestNumber, failed: boolean): void {
    if (request !== 0) this.#append(kind.done, this.#now, request, 0, 0, false, failed);
  }

  /** For a trace: records request and answer together. Returns whether it did. */
  answered({ kind: what, offset, length, fua, failed, begun, done, payload }: AnsweredRequest): boolean {
    const request = this.#begin(what, begun, offset, length, fua, payload);
    if (request !== 0) this.#append(kind.done, done, request, 0, 0, false, failed);
    return this.#isRecording;
  }

  /** For a trace: records that `count` requests are missing. `time` is as in {@link AnsweredRequest}. */
  lost(count: number, time: number): boolean {
    this.#append(kind.lost, time, 0, 0, count, false, false);
    return this.#isRecording;
  }

  /** Records a mark. A checker can ask for the last mark before the crash. Returns whether it was recorded. */
  mark(text: string): boolean {
    this.#append(kind.mark, this.#now, 0, 0, 0, false, false, Buffer.from(text).subarray(0, MARK_MAX));
    return this.#isRecording;
  }

  close(): void {
    this.#isRecording = false;
    // If the device could not be attached, for example, the next attempt may use the name again.
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
    // A reader would notice the incomplete record; this is to give its space back.
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

/** Writes the header. Returns what is wrong with the file; undefined if nothing. */
function startFailure(fd: number, header: Uint8Array): string | undefined {
  const there = file.pread(fd, new Uint8Array(1), 0);
  if (there === -errno.ESPIPE) return "is not a regular file: give another name";
  if (there > 0) return "is there already: give another name, or remove it first";
  const written = there < 0 ? there : file.pwrite(fd, header, 0);
  if (written === header.length) return undefined;
  return `cannot be written (${errorText(written < 0 ? -written : errno.ENOSPC)}): choose another place`;
}
