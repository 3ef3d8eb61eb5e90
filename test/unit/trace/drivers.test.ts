/** Goal: each request that either driver answered is in its queue's ring, in terms of NBD, with the data of writes. */
import { describe, expect, test } from "bun:test";
import type { BlockDevice } from "../../../src/device.ts";
import {
  entry,
  ENTRY_WORDS,
  makeTraceRing,
  TraceReader,
  TraceWriter,
} from "../../../src/queues/trace-ring.ts";
import { errno } from "../../../src/uapi/errno.ts";
import {
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
} from "../../../src/uapi/nbd.ts";
import {
  UBLK_IO_F_FUA,
  UBLK_IO_OP_DISCARD,
  UBLK_IO_OP_FLUSH,
  UBLK_IO_OP_READ,
  UBLK_IO_OP_WRITE,
} from "../../../src/uapi/ublk_cmd.ts";
import * as nbd from "../../support/golden.ts";
import { Peer } from "../../support/peer.ts";
import { pattern } from "../../support/random.ts";
import { MemoryShadow, Shadow } from "../../support/shadow.ts";
import { useServedQueues } from "../../support/served-queue.ts";

const open = await useServedQueues();

const SIZE = 2 ** 20;
const BLOCK = 4096;
const DATA = pattern(BLOCK);

/** A write with FUA, one beyond the end, a read, a flush and a trim. */
function overNbd(device: BlockDevice, ring: SharedArrayBuffer): void {
  using peer = new Peer(device, { ring: new TraceWriter(ring) });
  const requests: nbd.Request[] = [
    { cookie: 1n, command: nbd.WRITE, flags: nbd.FUA, offset: BLOCK, payload: DATA },
    { cookie: 2n, command: nbd.WRITE, offset: SIZE, payload: DATA },
    { cookie: 3n, command: nbd.READ, offset: 0, length: BLOCK },
    { cookie: 4n, command: nbd.FLUSH, offset: 0, length: 0 },
    { cookie: 5n, command: nbd.TRIM, offset: 0, length: 2 * BLOCK },
  ];
  peer.send(nbd.encodeAll(requests));
  peer.run();
}

function overUblk(needGetData: boolean): (device: BlockDevice, ring: SharedArrayBuffer) => void {
  return (device, traceRing) => {
    using served = open(device, {}, { needGetData, traceRing });
    served.askAll(
      { operation: UBLK_IO_OP_WRITE, flags: UBLK_IO_F_FUA, offset: BLOCK, data: DATA },
      { operation: UBLK_IO_OP_WRITE, offset: SIZE, data: DATA },
      { operation: UBLK_IO_OP_READ, offset: 0, length: BLOCK },
      { operation: UBLK_IO_OP_FLUSH },
      { operation: UBLK_IO_OP_DISCARD, offset: 0, length: 2 * BLOCK },
    );
  };
}

describe.each([
  ["nbd", overNbd],
  ["ublk", overUblk(false)],
  ["ublk, where a write comes twice", overUblk(true)],
] as const)("%s", (_, ask) => {
  test.each([
    ["a device with methods", () => new Shadow(SIZE)],
    ["memory", () => new MemoryShadow(SIZE)],
  ] as const)("%s", (__, make) => {
    const ring = makeTraceRing();
    const reader = new TraceReader(ring, true);
    ask(make(), ring);
    const { entries, data, lost } = reader.take(100, SIZE);
    expect(lost).toBe(0);
    const told = Array.from({ length: entries.length / ENTRY_WORDS }, (___, index) => {
      const word = (place: number): number => entries[index * ENTRY_WORDS + place] ?? Number.NaN;
      const times = [entry.arrived, entry.begun, entry.settled].map(word);
      expect(times).toEqual(times.toSorted((a, b) => a - b));
      expect(times[0]).toBeGreaterThan(0);
      const from = word(entry.data);
      const bytes = from < 0 ? undefined : data.slice(from, from + word(entry.length));
      return [
        [entry.command, entry.flags, entry.offset, entry.length, entry.error].map(word),
        bytes,
      ] as const;
    });
    const byCommand = told.toSorted(([a], [b]) => (a[0] ?? 0) - (b[0] ?? 0) || (a[2] ?? 0) - (b[2] ?? 0));
    expect(byCommand).toEqual([
      [[NBD_CMD_READ, 0, 0, BLOCK, 0], undefined],
      [[NBD_CMD_WRITE, NBD_CMD_FLAG_FUA, BLOCK, BLOCK, 0], DATA],
      [[NBD_CMD_WRITE, 0, SIZE, BLOCK, errno.ENOSPC], undefined],
      [[NBD_CMD_FLUSH, 0, 0, 0, 0], undefined],
      [[NBD_CMD_TRIM, 0, 0, 2 * BLOCK, 0], undefined],
    ]);
  });
});
