/** Goal: a frame of "top" shows what fits, what matters most if little fits, and nothing that harms a terminal. */
import { expect, test } from "bun:test";
import type { DeviceState } from "../../../src/cli/top/device-state.ts";
import type { Rates } from "../../../src/cli/top/rates.ts";
import { drawFrame } from "../../../src/cli/top/screen.ts";

const FRAME = { columns: 80, isUnicode: false, time: "12:00:05", seconds: 1, hint: "q: quit" };
const RATES: Rates = {
  seconds: 1,
  iops: 10,
  readBytesPerSecond: 0,
  writtenBytesPerSecond: 0,
  depth: 0,
  kinds: {},
  errors: {},
  layers: [],
  heat: { read: [], write: [] },
};
/** With rates, as here, a device has four lines: its name, its command line, the totals and the sparkline. */
const SERVING: DeviceState = {
  path: "/dev/nbd0",
  pid: 1,
  uid: 0,
  driver: "nbd",
  state: "serving",
  silentSeconds: 0,
  reason: undefined,
  version: "1",
  words: ["loop", "disk.img", "/dev/nbd0"],
  size: 2 ** 20,
  readOnly: false,
  mounts: [],
  holders: [],
  queues: 1,
  inFlight: 0,
  rates: RATES,
  errorsTotal: {},
  oldest: undefined,
};
const STOPPED: DeviceState = {
  ...SERVING,
  path: "/dev/nbd9",
  pid: 9,
  state: "silent",
  silentSeconds: 7,
  words: [],
  rates: undefined,
};

function draw(devices: readonly DeviceState[], rows: number): string[] {
  return drawFrame(devices, new Map(), { ...FRAME, rows });
}

// The headline, and a blank line before each device.
test.each([
  [3, 16, { lines: 16, sparklines: 3 }],
  [3, 15, { lines: 7, sparklines: 0 }],
  [3, 7, { lines: 7, sparklines: 0 }],
  [3, 6, { lines: 6, sparklines: 0 }],
])("%d devices in %d rows", (count, rows, expected) => {
  const devices = Array.from({ length: count }, (_, pid) => ({ ...SERVING, pid }));
  const lines = draw(devices, rows);
  const sparklines = lines.filter((line) => line.startsWith("  IOPS ")).length;
  expect({ lines: lines.length, sparklines }).toEqual(expected);
  expect(lines.some((line) => line.includes("more devices than lines"))).toBe(rows < 7);
});

test.each([Infinity, 5])("one that does not answer is said to, with room for %p lines", (rows) => {
  const lines = draw([SERVING, STOPPED], rows);
  expect(lines.at(-1)).toBe("  does not answer, for 7 s: it is stopped, or its device holds it up");
});

test.each([SERVING, STOPPED, { ...STOPPED, state: "other", reason: "\x1b[2Jno" } as const])(
  "what others have chosen moves no cursor: %#",
  (device) => {
    const evil = {
      ...device,
      path: "nbd+unix:///\x1b[31m?socket=\x07",
      words: ["\x1b[2J"],
      mounts: ["/\r\x9b5n"],
    };
    for (const rows of [Infinity, 3]) expect(draw([evil], rows).join("")).not.toMatch(/\p{Cc}/u);
    expect(draw([{ ...evil, path: "nbd+unix://[" }], Infinity)[2]).toStartWith("nbd+unix://[ ");
  },
);
