/**
 * The public API of tsbuse: what a device needs, and nothing of how it is served.
 * @packageDocumentation
 */
export type { BlockDevice, MemoryWindow, WriteOptions, WriteZeroesOptions } from "./device.ts";
export { DEFAULT_BLOCK_SIZE } from "./device.ts";
export { ErrnoError, UserError } from "./errors.ts";
export * as libc from "./libc/index.ts";
export { errno } from "./uapi/errno.ts";
