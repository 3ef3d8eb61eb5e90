/**
 * The public API of tsbuse: what a device needs, and nothing of how it is served.
 * @packageDocumentation
 */
export {
  attach,
  Attachment,
  type AttachOptions,
  type CommonOptions,
  serve,
  type ServeOptions,
} from "./attach.ts";
export {
  type CheckFailure,
  checkDevice,
  type CheckOptions,
  type CheckReport,
  type MakeDevice,
} from "./check/check.ts";
export type {
  BlockDevice,
  Extent,
  MemoryWindow,
  SharedDevice,
  WriteOptions,
  WriteZeroesOptions,
} from "./device.ts";
export { DEFAULT_BLOCK_SIZE } from "./device.ts";
export { ErrnoError, RepeatedError, UserError } from "./errors.ts";
export type { Command } from "./layers/around.ts";
export { cowLayer, type CowOptions } from "./layers/cow.ts";
export { delayLayer, type DelayOptions } from "./layers/delay.ts";
export { errorLayer, type ErrorOptions } from "./layers/error.ts";
export { applyLayers, type Layer } from "./layers/layer.ts";
export { logLayer, type LogOptions } from "./layers/log.ts";
export { readonlyLayer } from "./layers/readonly.ts";
export { markRecords, recordLayer, type RecordOptions } from "./layers/record.ts";
export { type CommandStatistics, RequestStatistics, statsLayer, type StatsOptions } from "./layers/stats.ts";
export { connectNbd, type NbdOptions } from "./nbd/client/device.ts";
export type { Statistics } from "./transport.ts";
export type { GivenOptions, OptionDefinition, OptionTable, OptionValues } from "./values/option-table.ts";
export * as libc from "./libc/index.ts";
export { errno } from "./uapi/errno.ts";
