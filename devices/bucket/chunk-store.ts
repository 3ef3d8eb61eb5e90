/** Where a cache keeps its chunks. A key names a chunk for ever; the chunk never changes. */
export interface ChunkStore {
  has(key: string): boolean;
  /**
   * Fills `target` from byte `at` of the chunk on. Returns false when there is no such chunk, or it is damaged;
   * `target` may then be changed in part.
   */
  read(key: string, at: number, target: Uint8Array): Promise<boolean>;
  /**
   * Stores the chunk, or ignores it. `bytes` is lent until the promise settles, and never changes afterwards. Never
   * rejects.
   */
  write(key: string, bytes: Uint8Array): Promise<void>;
  close(): Promise<void>;
}
