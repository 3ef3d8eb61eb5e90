/** What the driver and its servers tell each other about a device: `ublksrv_ctrl_dev_info` and `ublk_params`. */
import type { Dispatch } from "../../dispatch.ts";
import { isInitialPidNamespace } from "../../nodes/openers.ts";
import {
  UBLK_ATTR_FUA,
  UBLK_ATTR_READ_ONLY,
  UBLK_ATTR_ROTATIONAL,
  UBLK_ATTR_VOLATILE_CACHE,
  UBLK_PARAM_TYPE_BASIC,
  UBLK_PARAM_TYPE_DISCARD,
  ublk_param_basic,
  ublk_param_discard,
  ublk_params,
  ublksrv_ctrl_dev_info,
} from "../../uapi/ublk_cmd.ts";

export interface DeviceInfo {
  /** N of /dev/ublkbN. */
  readonly id: number;
  readonly queues: number;
  readonly queueDepth: number;
  /** Bytes of the longest request. */
  readonly requestBytes: number;
  /** UBLK_S_DEV_*. */
  readonly state: number;
  /** The process that started it; 0 or less if none has. */
  readonly pid: number;
  /** UBLK_F_*. */
  readonly flags: number;
  /** The tsbuse process that made it; undefined if another program did, or one in another PID namespace. */
  readonly maker: number | undefined;
  /** Distinguishes it from earlier devices of this number; undefined if another program made it. */
  readonly stamp: number | undefined;
}

/** "tsbu", in the half of `ublksrv_flags` above the stamp: the driver keeps it and ignores it. */
const MAKER_MAGIC = 0x74736275;
/**
 * The stamp is the maker's process ID, which has at most this many bits (proc(5), pid_max), with random bits above. In
 * a container the ID is 0, because outside of it the same ID means another process, or none.
 */
const PID_BITS = 22;
const PID_MASK = 2 ** PID_BITS - 1;
const CHANCE = 2 ** (32 - PID_BITS);
const SECTOR_BYTES = 512;
/** The driver splits trims and zeroes into pieces of up to 2 GiB. */
const DISCARD_SECTORS_MAX = 2 ** 31 / SECTOR_BYTES;

/** The device to add: the driver chooses the number if `id` is undefined. */
export function encodeDeviceInfo(
  info: Pick<DeviceInfo, "queues" | "queueDepth" | "requestBytes" | "flags"> & { id: number | undefined },
  stamp = newStamp(),
): Uint8Array {
  const bytes = new Uint8Array(new ArrayBuffer(ublksrv_ctrl_dev_info.size));
  const view = new DataView(bytes.buffer);
  view.setUint16(ublksrv_ctrl_dev_info.nr_hw_queues, info.queues, true);
  view.setUint16(ublksrv_ctrl_dev_info.queue_depth, info.queueDepth, true);
  view.setUint32(ublksrv_ctrl_dev_info.max_io_buf_bytes, info.requestBytes, true);
  view.setUint32(ublksrv_ctrl_dev_info.dev_id, info.id ?? 0xffffffff, true);
  view.setUint32(ublksrv_ctrl_dev_info.flags, info.flags, true);
  view.setUint32(ublksrv_ctrl_dev_info.ublksrv_flags, stamp, true);
  view.setUint32(ublksrv_ctrl_dev_info.ublksrv_flags + 4, MAKER_MAGIC, true);
  return bytes;
}

function newStamp(): number {
  const maker = isInitialPidNamespace() ? process.pid : 0;
  return maker + Math.floor(Math.random() * CHANCE) * 2 ** PID_BITS;
}

export function decodeDeviceInfo(bytes: Uint8Array): DeviceInfo {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const marked = view.getUint32(ublksrv_ctrl_dev_info.ublksrv_flags + 4, true) === MAKER_MAGIC;
  const stamp = marked ? view.getUint32(ublksrv_ctrl_dev_info.ublksrv_flags, true) : undefined;
  const maker = (stamp ?? 0) & PID_MASK;
  return {
    id: view.getUint32(ublksrv_ctrl_dev_info.dev_id, true),
    queues: view.getUint16(ublksrv_ctrl_dev_info.nr_hw_queues, true),
    queueDepth: view.getUint16(ublksrv_ctrl_dev_info.queue_depth, true),
    requestBytes: view.getUint32(ublksrv_ctrl_dev_info.max_io_buf_bytes, true),
    state: view.getUint16(ublksrv_ctrl_dev_info.state, true),
    pid: view.getInt32(ublksrv_ctrl_dev_info.ublksrv_pid, true),
    flags: view.getUint32(ublksrv_ctrl_dev_info.flags, true),
    maker: maker === 0 ? undefined : maker,
    stamp,
  };
}

/** Size and features of a device, for its node. */
export function encodeParams(dispatch: Dispatch, requestBytes: number): Uint8Array {
  const { capabilities, blockSize } = dispatch;
  const discards = capabilities.trim || capabilities.writeZeroes;
  const length = ublk_params.discard + ublk_param_discard.size;
  const bytes = new Uint8Array(new ArrayBuffer(length));
  const view = new DataView(bytes.buffer);
  view.setUint32(ublk_params.len, length, true);
  view.setUint32(ublk_params.types, UBLK_PARAM_TYPE_BASIC | (discards ? UBLK_PARAM_TYPE_DISCARD : 0), true);

  const basic = ublk_params.basic;
  const shift = Math.log2(blockSize);
  view.setUint32(basic + ublk_param_basic.attrs, attributes(dispatch), true);
  view.setUint8(basic + ublk_param_basic.logical_bs_shift, shift);
  view.setUint8(basic + ublk_param_basic.physical_bs_shift, shift);
  view.setUint8(basic + ublk_param_basic.io_opt_shift, shift);
  view.setUint8(basic + ublk_param_basic.io_min_shift, shift);
  view.setUint32(basic + ublk_param_basic.max_sectors, requestBytes / SECTOR_BYTES, true);
  view.setBigUint64(basic + ublk_param_basic.dev_sectors, BigInt(dispatch.size / SECTOR_BYTES), true);
  if (!discards) return bytes;

  const discard = ublk_params.discard;
  const trim = capabilities.trim ? DISCARD_SECTORS_MAX : 0;
  const zeroes = capabilities.writeZeroes ? DISCARD_SECTORS_MAX : 0;
  view.setUint32(discard + ublk_param_discard.discard_granularity, blockSize, true);
  view.setUint32(discard + ublk_param_discard.max_discard_sectors, trim, true);
  view.setUint32(discard + ublk_param_discard.max_write_zeroes_sectors, zeroes, true);
  view.setUint16(discard + ublk_param_discard.max_discard_segments, 1, true);
  return bytes;
}

function attributes({ capabilities }: Dispatch): number {
  let attrs = 0;
  if (!capabilities.write) attrs |= UBLK_ATTR_READ_ONLY;
  if (capabilities.rotational) attrs |= UBLK_ATTR_ROTATIONAL;
  if (capabilities.flush) attrs |= UBLK_ATTR_VOLATILE_CACHE;
  if (capabilities.fua) attrs |= UBLK_ATTR_FUA;
  return attrs;
}

/** What a node shows its users, in bytes. */
export interface NodeShape {
  readonly size: number;
  readonly blockSize: number;
  /** What users may request, in the words of Capabilities. */
  readonly offers: readonly ("write" | "flush" | "fua" | "trim" | "writeZeroes")[];
}

/** Decodes the answer to UBLK_U_CMD_GET_PARAMS. */
export function decodeShape(params: Uint8Array): NodeShape {
  const view = new DataView(params.buffer, params.byteOffset, params.byteLength);
  const { basic, discard } = ublk_params;
  const attrs = view.getUint32(basic + ublk_param_basic.attrs, true);
  const isOffered = {
    write: (attrs & UBLK_ATTR_READ_ONLY) === 0,
    flush: (attrs & UBLK_ATTR_VOLATILE_CACHE) !== 0,
    fua: (attrs & UBLK_ATTR_FUA) !== 0,
    trim: view.getUint32(discard + ublk_param_discard.max_discard_sectors, true) > 0,
    writeZeroes: view.getUint32(discard + ublk_param_discard.max_write_zeroes_sectors, true) > 0,
  };
  return {
    size: Number(view.getBigUint64(basic + ublk_param_basic.dev_sectors, true)) * SECTOR_BYTES,
    blockSize: 2 ** view.getUint8(basic + ublk_param_basic.logical_bs_shift),
    offers: (["write", "flush", "fua", "trim", "writeZeroes"] as const).filter((word) => isOffered[word]),
  };
}

/** A buffer for UBLK_U_CMD_GET_PARAMS: the driver's structure may be shorter or longer. */
export function paramsRoom(): Uint8Array {
  const bytes = new Uint8Array(new ArrayBuffer(ublk_params.discard + ublk_param_discard.size));
  new DataView(bytes.buffer).setUint32(ublk_params.len, bytes.length, true);
  return bytes;
}
