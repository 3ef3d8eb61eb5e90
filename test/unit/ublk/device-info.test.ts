/** Goal: what we send to the ublk driver, and how we read its answers, agrees with the C compiler's layout. */
import { describe, expect, test } from "bun:test";
import type { BlockDevice } from "../../../src/device.ts";
import { Dispatch } from "../../../src/dispatch.ts";
import {
  decodeDeviceInfo,
  decodeShape,
  encodeDeviceInfo,
  type NodeShape,
  encodeParams,
  paramsRoom,
} from "../../../src/ublk/control/device-info.ts";
import { isInitialPidNamespace } from "../../../src/nodes/openers.ts";
import { bytesOf, HAS_COMPILER } from "../../support/c-program.ts";
import { standIn } from "../../support/stand-in.ts";

const HEADERS = ["<linux/ublk_cmd.h>"];
/** 0x74736275, "tsbu" from the highest byte on, above the process ID. */
const OURS = "0x7473627500000000ull";

const nothing = (): void => undefined;
const ALL: BlockDevice = {
  size: 2 ** 41 + 4096,
  read: nothing,
  write: nothing,
  flush: nothing,
  trim: nothing,
  writeZeroes: nothing,
};

function info(members: string): Uint8Array {
  return bytesOf(HEADERS, "struct ublksrv_ctrl_dev_info", `{ ${members} }`);
}

describe.skipIf(!HAS_COMPILER)("a device's description", () => {
  test.each<[string, number | undefined, string]>([
    ["of a number", 7, "7"],
    ["of any number", undefined, "-1"],
  ])("is asked for: %s", (_, id, number) => {
    const asked = { id, queues: 3, queueDepth: 513, requestBytes: 0x12_3400, flags: 0x58 };
    expect(encodeDeviceInfo(asked, 0xfedc_ba98)).toEqual(
      info(`.nr_hw_queues = 3, .queue_depth = 513, .max_io_buf_bytes = 0x123400, .dev_id = ${number},
        .flags = 0x58, .ublksrv_flags = ${OURS} | 0xfedcba98`),
    );
  });

  const members = `.nr_hw_queues = 2, .queue_depth = 4096, .state = 2, .max_io_buf_bytes = 0x80000, .dev_id = 41,
    .flags = 0x5a`;

  test("is understood, of a device of ours", () => {
    const ours = `.ublksrv_pid = 4711, .ublksrv_flags = ${OURS} | 0xffffffff`;
    expect(decodeDeviceInfo(info(`${members}, ${ours}`))).toEqual({
      id: 41,
      queues: 2,
      queueDepth: 4096,
      requestBytes: 0x8_0000,
      state: 2,
      pid: 4711,
      flags: 0x5a,
      maker: 4_194_303,
      stamp: 0xffff_ffff,
    });
  });

  test("is understood, of a device that was made in a container", () => {
    const bytes = info(`${members}, .ublksrv_flags = ${OURS} | 0xffc00000`);
    expect(decodeDeviceInfo(bytes)).toMatchObject({ maker: undefined, stamp: 0xffc0_0000 });
  });

  test("names no maker whose number says nothing outside of a container", async () => {
    let isInitial = false;
    await using _ = await standIn({ "nodes/openers.ts": { isInitialPidNamespace: () => isInitial } });
    const asked = { id: 3, queues: 4, queueDepth: 64, requestBytes: 65_536, flags: 0x48 };
    expect(decodeDeviceInfo(encodeDeviceInfo(asked)).maker).toBeUndefined();
    isInitial = true;
    expect(decodeDeviceInfo(encodeDeviceInfo(asked)).maker).toBe(process.pid);
  });

  test.each([
    ["that has none", "0"],
    ["of another program", "4711"],
    ["of another program, that looks a little like ours", "0x7473627400000000ull | 4711"],
  ])("is nobody's of ours with flags %s", (_, flags) => {
    const bytes = info(`${members}, .ublksrv_pid = -1, .ublksrv_flags = ${flags}`);
    expect(decodeDeviceInfo(bytes)).toMatchObject({ maker: undefined, stamp: undefined, pid: -1 });
  });

  test("comes back as it was sent", () => {
    const asked = { id: 3, queues: 4, queueDepth: 64, requestBytes: 65_536, flags: 0x48 };
    const padded = new Uint8Array(100);
    padded.set(encodeDeviceInfo(asked), 13);
    expect(decodeDeviceInfo(padded.subarray(13, 77))).toEqual({
      ...asked,
      state: 0,
      pid: 0,
      maker: isInitialPidNamespace() ? process.pid : undefined,
      stamp: expect.any(Number),
    });
  });
});

/** All that is sent, without what the compiler pads the structure with. */
const LENGTH = "offsetof(struct ublk_params, discard) + sizeof(struct ublk_param_discard)";

function params(members: string): Uint8Array {
  const bytes = bytesOf(HEADERS, "struct ublk_params", `{ .len = ${LENGTH}, ${members} }`);
  return bytes.subarray(0, 8 + 32 + 20);
}

describe.skipIf(!HAS_COMPILER)("parameters", () => {
  const BASIC = `.logical_bs_shift = 9, .physical_bs_shift = 9, .io_opt_shift = 9, .io_min_shift = 9,
    .max_sectors = 256, .dev_sectors = (1ull << 32) + 8`;
  const DISCARD = ".discard_granularity = 512, .max_discard_segments = 1";
  /** 2 GiB in sectors. */
  const LARGEST = "1u << 22";

  test.each<[string, BlockDevice, string]>([
    [
      "of a device that can do everything",
      ALL,
      `.types = 3, .basic = { .attrs = UBLK_ATTR_VOLATILE_CACHE | UBLK_ATTR_FUA, ${BASIC} },
       .discard = { ${DISCARD}, .max_discard_sectors = ${LARGEST}, .max_write_zeroes_sectors = ${LARGEST} }`,
    ],
    [
      "of one without a cache, which turns, and trims but has no zeroes",
      { size: ALL.size, read: nothing, write: nothing, trim: nothing, rotational: true },
      `.types = 3, .basic = { .attrs = UBLK_ATTR_ROTATIONAL, ${BASIC} },
       .discard = { ${DISCARD}, .max_discard_sectors = ${LARGEST} }`,
    ],
    [
      "of one with zeroes and without trim",
      { size: ALL.size, read: nothing, write: nothing, writeZeroes: nothing },
      `.types = 3, .basic = { ${BASIC} },
       .discard = { ${DISCARD}, .max_write_zeroes_sectors = ${LARGEST} }`,
    ],
    [
      "of one that can be read and flushed",
      { size: ALL.size, read: nothing, flush: nothing },
      `.types = 1, .basic = { .attrs = UBLK_ATTR_READ_ONLY | UBLK_ATTR_VOLATILE_CACHE, ${BASIC} }`,
    ],
    [
      "of one that can only be read",
      { size: ALL.size, read: nothing },
      `.types = 1, .basic = { .attrs = UBLK_ATTR_READ_ONLY, ${BASIC} }`,
    ],
  ])("%s", (_, device, members) => {
    expect(encodeParams(new Dispatch(device), 131_072)).toEqual(params(members));
  });

  test("of larger blocks", () => {
    const dispatch = new Dispatch(ALL, { blockSize: 4096 });
    expect(encodeParams(dispatch, 2 ** 20)).toEqual(
      params(`.types = 3, .basic = { .attrs = UBLK_ATTR_VOLATILE_CACHE | UBLK_ATTR_FUA, .logical_bs_shift = 12,
        .physical_bs_shift = 12, .io_opt_shift = 12, .io_min_shift = 12, .max_sectors = 2048,
        .dev_sectors = (1ull << 32) + 8 },
        .discard = { .discard_granularity = 4096, .max_discard_segments = 1, .max_discard_sectors = ${LARGEST},
        .max_write_zeroes_sectors = ${LARGEST} }`),
    );
  });

  test.each<[string, string, NodeShape["offers"]]>([
    ["UBLK_ATTR_READ_ONLY", "{}", []],
    ["0", "{ .max_discard_sectors = 1 }", ["write", "trim"]],
    [
      "UBLK_ATTR_VOLATILE_CACHE | UBLK_ATTR_FUA",
      "{ .max_write_zeroes_sectors = 1 }",
      ["write", "flush", "fua", "writeZeroes"],
    ],
  ])("tell size, block size and what users may ask for: %s, %s", (attrs, discard, offers) => {
    const basic = `.attrs = ${attrs}, .logical_bs_shift = 12, .dev_sectors = (1ull << 33) + 16`;
    const bytes = params(`.types = 3, .basic = { ${basic} }, .discard = ${discard}`);
    expect(decodeShape(bytes)).toEqual({ size: 2 ** 42 + 8192, blockSize: 4096, offers });
  });

  test("are asked for with room for them", () => {
    expect(paramsRoom()).toEqual(params(""));
  });
});
