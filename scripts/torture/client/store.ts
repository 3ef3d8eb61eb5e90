/** Where a client's blocks are: on a node, on an NBD server, or each in a file. */
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { NbdStore } from "./nbd-store.ts";

/** Buffers hold a whole block and are page-aligned. A method that fails throws an error with its code. */
export interface Store {
  write(block: number, source: Uint8Array): Promise<void>;
  /** Missing bytes, such as the rest of a short file, read as zeroes. */
  read(block: number, target: Uint8Array): Promise<void>;
  flush(): Promise<void>;
  close(): Promise<void>;
}

/** @param target a node, a directory, or the URI of a server. */
export async function openStore(target: string): Promise<Store> {
  if (target.startsWith("nbd")) return NbdStore.connect(target);
  if (!target.startsWith("/dev/")) return new FilesStore(target);
  return new NodeStore(await open(target, constants.O_RDWR | constants.O_DIRECT));
}

/** A node, bypassing the page cache, so that every acknowledgement comes from the device. */
class NodeStore implements Store {
  constructor(readonly handle: FileHandle) {}

  write(block: number, source: Uint8Array): Promise<void> {
    return writeAll(this.handle, source, block * source.length);
  }

  async read(block: number, target: Uint8Array): Promise<void> {
    const { bytesRead } = await this.handle.read(target, 0, target.length, block * target.length);
    if (bytesRead !== target.length) throw new Error(`read ${bytesRead} bytes of ${target.length}`);
  }

  flush(): Promise<void> {
    return this.handle.sync();
  }

  close(): Promise<void> {
    return this.handle.close();
  }
}

/** A file for each block. A write is done when the file has been synced. */
class FilesStore implements Store {
  constructor(readonly directory: string) {}

  async write(block: number, source: Uint8Array): Promise<void> {
    await using handle = await open(this.#path(block), constants.O_RDWR | constants.O_CREAT);
    await writeAll(handle, source, 0);
    await handle.sync();
  }

  async read(block: number, target: Uint8Array): Promise<void> {
    target.fill(0);
    await using handle = await open(this.#path(block), constants.O_RDWR | constants.O_CREAT);
    await handle.read(target, 0, target.length, 0);
  }

  async flush(): Promise<void> {
    await using handle = await open(this.directory, constants.O_RDONLY);
    await handle.sync();
  }

  async close(): Promise<void> {
    // No file is open between two operations.
  }

  #path(block: number): string {
    return join(this.directory, `block-${block}`);
  }
}

async function writeAll(handle: FileHandle, source: Uint8Array, offset: number): Promise<void> {
  const { bytesWritten } = await handle.write(source, 0, source.length, offset);
  if (bytesWritten !== source.length) throw new Error(`wrote ${bytesWritten} bytes of ${source.length}`);
}
