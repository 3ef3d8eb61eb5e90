/** Goal: both drivers report each request's time in the queue and in the device. The clock is a stand-in. */
import { afterAll, beforeEach, describe, expect, spyOn, test } from "bun:test";
import type { BlockDevice } from "../../src/device.ts";
import { ErrnoError } from "../../src/errors.ts";
import {
  BYTES,
  COUNT,
  errorCells,
  FAILED,
  heatCells,
  kindCells,
  oldestOf,
  QUEUED,
  QUEUED_MAX,
  READ,
  SERVED,
  SERVED_MAX,
  WRITE,
} from "../../src/queues/ledger.ts";
import { errno } from "../../src/uapi/errno.ts";
import { UBLK_IO_OP_READ, UBLK_IO_OP_WRITE } from "../../src/uapi/ublk_cmd.ts";
import type { Trace } from "../../src/transport.ts";
import { traceTo } from "../../src/ublk/queue/trace.ts";
import { turns } from "../support/async-devices.ts";
import * as nbd from "../support/golden.ts";
import { Peer } from "../support/peer.ts";
import { HeldDevice } from "../support/held-device.ts";
import { pattern } from "../support/random.ts";
import { MemoryShadow, Shadow } from "../support/shadow.ts";
import { useServedQueues } from "../support/served-queue.ts";

const open = await useServedQueues();

const SIZE = 2 ** 20;
const BLOCK = 4096;
const START_MS = 1000;

let nowMs = 0;
const clock = spyOn(performance, "now").mockImplementation(() => nowMs);

afterAll(() => {
  clock.mockRestore();
});

/** What was traced: the block, and in milliseconds the time in the queue, in the device, and when it was settled. */
let seen: number[][] = [];

beforeEach(() => {
  nowMs = START_MS;
  seen = [];
});

/** Requests that are sent through a driver, and what it does with them. */
interface Driver {
  /** What it counts. */
  readonly cells: Float64Array;
  /** Sends requests for these blocks at once, and lets the driver do what it can. */
  ask(command: "read" | "write", ...blocks: readonly number[]): void;
  /** Lets it do what it can, now that the device has settled something. */
  goOn(): Promise<void>;
  [Symbol.dispose](): void;
}

function overNbd(device: BlockDevice, requestTimeoutMs?: number): Driver {
  const peer = new Peer(device, { trace, requestTimeoutMs });
  return {
    cells: peer.service.cells,
    ask(command, ...blocks) {
      const requests = blocks.map((block): nbd.Request => {
        const [cookie, offset] = [BigInt(block), block * BLOCK];
        return command === "read"
          ? { cookie, offset, command: nbd.READ, length: BLOCK }
          : { cookie, offset, command: nbd.WRITE, payload: pattern(BLOCK) };
      });
      peer.send(nbd.encodeAll(requests));
      peer.run();
    },
    async goOn() {
      await turns(1);
      peer.run();
    },
    [Symbol.dispose]: () => peer[Symbol.dispose](),
  };
}

function overUblk(needGetData: boolean): typeof overNbd {
  return (device, requestTimeoutMs) => {
    const served = open(device, { trace: traceTo(trace), requestTimeoutMs }, { needGetData });
    let tag = 0;
    return {
      cells: served.counters,
      ask(command, ...blocks) {
        for (const block of blocks) {
          const offset = block * BLOCK;
          const request =
            command === "read"
              ? { operation: UBLK_IO_OP_READ, offset, length: BLOCK }
              : { operation: UBLK_IO_OP_WRITE, offset, data: pattern(BLOCK) };
          served.driver.ask(tag, request);
          tag += 1;
        }
        served.turn();
      },
      async goOn() {
        await turns(1);
        served.turn();
      },
      [Symbol.dispose]: () => served[Symbol.dispose](),
    };
  };
}

const trace: Trace = (_command, _flags, offset, _length, _error, queued, served, settledMs) => {
  seen.push([offset / BLOCK, queued / 1000, served / 1000, settledMs - START_MS]);
};

describe.each([
  ["nbd", overNbd],
  ["ublk", overUblk(false)],
  ["ublk, where a write comes twice", overUblk(true)],
])("%s", (_, serve) => {
  test("a device that answers at once keeps the requests after it waiting", () => {
    using driver = serve(new SlowDevice(SIZE));
    driver.ask("read", 0, 1, 2, 3);
    expect(seen).toEqual([
      [0, 0, 3, 3],
      [1, 3, 3, 6],
      [2, 6, 3, 9],
      [3, 9, 3, 12],
    ]);
  });

  test("a request waits for another that touches the same bytes, and that is no time of the device's", async () => {
    const device = new HeldDevice(SIZE);
    using driver = serve(device);
    driver.ask("write", 7);
    nowMs += 5;
    driver.ask("read", 7, 8);
    nowMs += 1;
    device.letGo("read 32768");
    await driver.goOn();
    nowMs += 6;
    device.letGo("write 28672");
    await driver.goOn();
    nowMs += 8;
    device.letGo("read 28672");
    await driver.goOn();
    expect(seen).toEqual([
      [8, 0, 1, 6],
      [7, 0, 12, 12],
      [7, 7, 8, 20],
    ]);
    const [reads, writes] = [kindCells(driver.cells, READ), kindCells(driver.cells, WRITE)];
    expect([reads[COUNT], reads[BYTES], reads[QUEUED], reads[QUEUED_MAX]]).toEqual([2, 2 * BLOCK, 7, 7]);
    expect([reads[SERVED], reads[SERVED_MAX], writes[SERVED], writes[QUEUED]]).toEqual([9, 8, 12, 0]);
    expect([...heatCells(driver.cells, "read")].slice(0, 4)).toEqual([0, BLOCK, BLOCK, 0]);
  });

  test("the oldest that is not answered is known, with its age, and what failed by its errno", async () => {
    const device = new HeldDevice(SIZE);
    using driver = serve(device);
    const oldest = (): unknown => {
      const { kind, offset, ageMs = 0 } = oldestOf(driver.cells) ?? {};
      return kind === undefined ? undefined : [kind, offset, Math.round(ageMs)];
    };
    expect(oldest()).toBeUndefined();
    driver.ask("write", 1);
    nowMs += 2;
    driver.ask("read", 3, 1);
    nowMs += 3;
    expect(oldest()).toEqual(["write", BLOCK, 5]);
    device.fail("write 4096", new ErrnoError("ENOSPC", "full"));
    await driver.goOn();
    expect(oldest()).toEqual(["read", 3 * BLOCK, 3]);
    device.letAllGo();
    await driver.goOn();
    device.letAllGo();
    await driver.goOn();
    expect(oldest()).toBeUndefined();
    expect(errorCells(driver.cells)[errno.ENOSPC]).toBe(1);
    expect(kindCells(driver.cells, WRITE)[FAILED]).toBe(1);
    expect(errorCells(driver.cells).reduce((sum, count) => sum + count)).toBe(1);
  });

  test("what was given up is known for as long as the device has it", async () => {
    const device = new HeldDevice(SIZE);
    using driver = serve(device, 20);
    driver.ask("write", 1, 2);
    // The watchdog's timer is real, its clock is not.
    nowMs += 1000;
    while (seen.length < 2) {
      await Bun.sleep(1);
      await driver.goOn();
    }
    device.letGo("write 4096");
    await driver.goOn();
    expect(oldestOf(driver.cells)).toMatchObject({ kind: "write", offset: 2 * BLOCK, ageMs: 1000 });
    device.letAllGo();
    await driver.goOn();
    expect(oldestOf(driver.cells)).toBeUndefined();
  });

  test("memory takes no time, and neither does what is refused", () => {
    using driver = serve(new MemoryShadow(SIZE));
    driver.ask("write", 5);
    nowMs += 1;
    driver.ask("read", 5, SIZE / BLOCK);
    expect(seen).toEqual([
      [5, 0, 0, 0],
      [5, 0, 0, 1],
      [SIZE / BLOCK, 0, 0, 1],
    ]);
  });
});

/** Takes 3 ms for a read. */
class SlowDevice extends Shadow {
  override read(target: Uint8Array, offset: number): void | Promise<void> {
    nowMs += 3;
    return super.read(target, offset);
  }
}
