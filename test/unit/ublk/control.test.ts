/** Goal: a command that the driver does not answer takes no other command's place, and nothing is done silently. */
import { expect, test } from "bun:test";
import { O_RDWR } from "../../../src/uapi/fcntl.ts";
import { errno } from "../../../src/uapi/errno.ts";
import { io_uring_sqe } from "../../../src/uapi/io_uring.ts";
import { standInForFile } from "../../support/stand-in.ts";

const ENTRY_WORDS = 32;
const SLOTS = 8;

/** A ring whose entries are complete when the test says so. */
class LateRing {
  readonly entryWords = ENTRY_WORDS;
  readonly words = new Int32Array(SLOTS * ENTRY_WORDS);
  readonly fd = -1;
  /** What was pushed is complete at once, with 0. */
  isQuick = false;
  ready = 0;
  readonly #slots: number[] = [];

  constructor() {
    rings.push(this);
  }

  push(entry: number): void {
    this.#slots.push(this.words[entry * ENTRY_WORDS + io_uring_sqe.user_data / 4] ?? 0);
  }

  enter(): number {
    if (this.isQuick) this.ready = this.#slots.length;
    return 0;
  }

  userData(index: number): number {
    return this.#slots[index] ?? 0;
  }

  result(): number {
    return 0;
  }

  consume(count: number): void {
    this.#slots.splice(0, count);
    this.ready -= count;
  }

  close(): void {
    this.ready = 0;
  }
}

const rings: LateRing[] = [];
const file = { ...(await import("../../../src/libc/file.ts")) };
await standInForFile({
  "libc/uring.ts": { Ring: LateRing },
  "libc/file.ts": { open: () => file.open("/dev/null", O_RDWR) },
  "ublk/control/ring-process.ts": {
    submitApart: () => {
      throw new Error("memfd_create: Permission denied");
    },
  },
});
const { Control } = await import("../../../src/ublk/control/control.ts");

test("a command that was given up on gives its place back when the driver answers after all", async () => {
  const control = new Control();
  const ring = rings.at(-1);
  if (ring === undefined) throw new Error("there is no ring");
  for (let slot = 0; slot < SLOTS; slot += 1)
    expect(await control.command(1, { limitMs: 1 })).toBe(-errno.ETIMEDOUT);
  expect(await control.command(1, {})).toBe(-errno.ECANCELED);
  ring.isQuick = true;
  ring.enter();
  for (let more = 0; more < 2 * SLOTS; more += 1) expect(await control.command(1, {})).toBe(0);
  control.close();
});

test("that no other process can submit a command is said once, and the command is carried out", async () => {
  const lines: string[] = [];
  const control = new Control((line) => lines.push(line));
  for (const ring of rings) ring.isQuick = true;
  expect([await control.commandApart(1, {}), await control.commandApart(1, {})]).toEqual([0, 0]);
  expect(lines).toEqual([
    "this process gives the ublk driver all its commands itself, and could hang if it is killed meanwhile (memfd_create: Permission denied): see sysctl vm.memfd_noexec",
  ]);
  control.close();
});
