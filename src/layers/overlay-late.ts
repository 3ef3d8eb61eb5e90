/** The overlay file of a device that another process hands over: opened once that process has released it. */
import { ErrnoError } from "../errors.ts";
import { fileIdentity } from "../libc/file-identity.ts";
import { close, open } from "../libc/file.ts";
import { O_RDONLY } from "../uapi/fcntl.ts";
import type { BlockMap } from "./block-map.ts";
import { openFailure } from "./files.ts";
import type { Overlay } from "./overlay.ts";
import { FileOverlay } from "./overlay-file.ts";

export class LateOverlay implements Overlay {
  readonly identity: string;
  readonly #path: string;
  readonly #size: number;
  #overlay: FileOverlay | undefined;

  /** @param size of the device, in bytes. @throws UserError if the file does not exist. */
  constructor(path: string, size: number) {
    this.#path = path;
    this.#size = size;
    const fd = open(path, O_RDONLY);
    if (fd < 0) throw openFailure(path, fd);
    this.identity = fileIdentity(fd);
    close(fd);
  }

  get map(): BlockMap {
    return this.#opened.map;
  }

  /** @throws UserError as {@link FileOverlay.open} does. */
  open(): void {
    this.#overlay ??= FileOverlay.open(this.#path, this.#size);
  }

  checkBase(fingerprint: Uint8Array): void {
    this.#opened.checkBase(fingerprint);
  }

  own(first: number, end: number): void {
    this.#opened.own(first, end);
  }

  read(target: Uint8Array, offset: number): void {
    this.#opened.read(target, offset);
  }

  write(source: Uint8Array, offset: number): void {
    this.#opened.write(source, offset);
  }

  discard(offset: number, length: number): void {
    this.#opened.discard(offset, length);
  }

  zero(offset: number, length: number): void {
    this.#opened.zero(offset, length);
  }

  flush(): void {
    this.#opened.flush();
  }

  close(): void {
    this.#overlay?.close();
  }

  get #opened(): FileOverlay {
    if (this.#overlay === undefined) throw new ErrnoError("EIO", `${this.#path} has not been opened yet`);
    return this.#overlay;
  }
}
