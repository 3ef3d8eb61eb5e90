/** mmap(2) of a file that another party writes: shared memory for reading. */
import { toArrayBuffer } from "bun:ffi";
import { MAP_POPULATE, MAP_SHARED, PROT_READ } from "../uapi/mman.ts";
import { pointer } from "./address.ts";
import { negativeErrno, unwrap } from "./errno.ts";
import { libc } from "./library.ts";

export class SharedMapping {
  /** The mapped bytes. Writing to them ends the process, as does touching them after {@link close}. */
  readonly buffer: ArrayBuffer;
  readonly #address: number;

  /** @param offset bytes, whole pages, as `length` is. @throws ErrnoError */
  constructor(fd: number, offset: number, length: number) {
    const result = negativeErrno(libc.mmap(0, length, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, offset));
    this.#address = unwrap(result, `mmap of ${length} bytes`);
    this.buffer = toArrayBuffer(pointer(this.#address), 0, length);
  }

  close(): void {
    unwrap(negativeErrno(libc.munmap(this.#address, this.buffer.byteLength)), "munmap");
  }
}
