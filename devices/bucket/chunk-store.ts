/** Where a cache has its chunks. A chunk is named by a key for ever, and is never changed. */
export interface ChunkStore {
  has(key: string): boolean;
  /**
   * Fills `target` from byte `at` of the chunk on. Returns false when there is no such chunk, or no intact one; bytes
   * of `target` may have been changed then.
   */
  read(key: string, at: number, target: Uint8Array): Promise<boolean>;
  /** Keeps the chunk, or does not. `bytes` is lent until it is done, and is not changed afterwards. Never rejects. */
  write(key: string, bytes: Uint8Array): Promise<void>;
  close(): Promise<void>;
}
