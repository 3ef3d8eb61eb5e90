/** Raw I/O on a device node, with or without the page cache, as a program does it. */
import { libc } from "tsbuse";

export { longPattern as pattern } from "./random.ts";

const ALIGNMENT = 4096;

/** Runs `use` with the node open; `direct` bypasses the page cache. */
function withNode<T>(path: string, direct: boolean, use: (fd: number) => T): T {
  const fd = libc.unwrap(libc.open(path, libc.O_RDWR | (direct ? libc.O_DIRECT : 0)), `open ${path}`);
  try {
    return use(fd);
  } finally {
    libc.close(fd);
  }
}

/** Runs `use` with page-aligned memory. */
function withBuffer<T>(length: number, use: (bytes: Uint8Array) => T): T {
  const memory = new libc.Memory(Math.ceil(length / ALIGNMENT) * ALIGNMENT);
  try {
    return use(memory.bytes().subarray(0, length));
  } finally {
    memory.close();
  }
}

/** Reads with one pread(2). Returns the bytes, or a negative errno. */
export function readDirect(path: string, offset: number, length: number): Uint8Array | number {
  return withNode(path, true, (fd) =>
    withBuffer(length, (bytes) => {
      const result = libc.pread(fd, bytes, offset);
      return result === length ? bytes.slice() : result;
    }),
  );
}

/** Writes with one pwrite(2). Returns its result, or a negative errno. */
export function writeDirect(path: string, offset: number, source: Uint8Array): number {
  return withNode(path, true, (fd) =>
    withBuffer(source.length, (bytes) => {
      bytes.set(source);
      return libc.pwrite(fd, bytes, offset);
    }),
  );
}
