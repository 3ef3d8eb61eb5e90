/** What a device throws, rejects or returns, and the answer that it becomes. */
import { describe, expect, test } from "bun:test";
import type { BlockDevice } from "../../src/device.ts";
import { Dispatch, type Status } from "../../src/dispatch.ts";
import { errno } from "../../src/uapi/errno.ts";
import { ErrnoError, RepeatedError } from "../../src/errors.ts";
import { Shadow } from "../support/shadow.ts";
import { lazily, stubborn, thenable, untouchable } from "../support/thenable.ts";

const { EIO, ENOSPC } = errno;
function readerOf(read: BlockDevice["read"]): BlockDevice {
  return { size: 4096, read };
}

/** The errno and the log line of a read that throws. */
function failed(thrown: unknown): { readonly status: Status; readonly lines: string[] } {
  const lines: string[] = [];
  const device = readerOf(() => {
    throw thrown;
  });
  const status = new Dispatch(device, { log: (line) => lines.push(line) }).read(new Uint8Array(512), 0);
  return { status, lines };
}

const no = (): never => {
  throw new Error("not me");
};
/** Throws whenever a property is read. */
const HERMIT = new Proxy({}, { get: no, getPrototypeOf: no });
const SHY = new Proxy(new ErrnoError("ENOSPC"), { get: no });

describe("what a method throws", () => {
  test.each<[string, unknown, number, string]>([
    ["an ErrnoError with a message", new ErrnoError("ENOSPC", "disk full"), ENOSPC, "read failed: disk full"],
    ["an ErrnoError without", new ErrnoError(ENOSPC), ENOSPC, "read failed: ENOSPC"],
    ["an ErrnoError of no error", new ErrnoError(0, "fine"), EIO, "read failed: fine"],
    ["an Error", new Error("oops"), EIO, "read failed (EIO): oops"],
    ["a string", "oops", EIO, "read failed (EIO): oops"],
    ["null", null, EIO, "read failed (EIO): null"],
    ["undefined", undefined, EIO, "read failed (EIO): undefined"],
    [
      "what cannot be printed",
      Object.create(null),
      EIO,
      "read failed (EIO): something that cannot be printed",
    ],
    ["a proxy", HERMIT, EIO, "read failed (EIO): something that cannot be printed"],
    ["a proxy of an ErrnoError", SHY, EIO, "read failed: something that cannot be printed"],
  ])("%s", (_, thrown, status, line) => {
    expect(failed(thrown)).toEqual({ status, lines: [line] });
  });

  test("what follows from a failure that was told of is no news", () => {
    expect(failed(new RepeatedError("ENOSPC", "still full"))).toEqual({ status: ENOSPC, lines: [] });
  });

  test("nobody has to listen", () => {
    const device = readerOf(() => {
      throw new Error("oops");
    });
    expect(new Dispatch(device).read(new Uint8Array(512), 0)).toBe(EIO);
  });
});

/** One call of each method. */
const CALLS: readonly (readonly [string, (dispatch: Dispatch) => Status])[] = [
  ["read", (dispatch) => dispatch.read(new Uint8Array(512), 512)],
  ["write", (dispatch) => dispatch.write(new Uint8Array(512), 512, true)],
  ["flush", (dispatch) => dispatch.flush()],
  ["trim", (dispatch) => dispatch.trim(512, 512, true)],
  ["writeZeroes", (dispatch) => dispatch.writeZeroes(512, 512, true, false)],
];

describe.each(CALLS)("a %s that returns a promise", (method, call) => {
  /** Whether the flush of an emulated FUA follows. */
  const flushes = !["read", "flush"].includes(method);

  test("is done when it settles, and only then flushed", async () => {
    const device = new Shadow(4096);
    const { promise, resolve } = Promise.withResolvers<void>();
    device.faults.set(method, () => promise);
    const status = call(new Dispatch(device));
    expect(status).toBeInstanceOf(Promise);
    await Bun.sleep(0);
    expect(device.calls).toHaveLength(1);
    resolve();
    expect(await status).toBe(0);
    expect(device.calls.slice(1)).toEqual(flushes ? ["flush"] : []);
  });

  test.each<[string, unknown, number, string]>([
    ["an ErrnoError", new ErrnoError("ENOSPC", "disk full"), ENOSPC, `${method} failed: disk full`],
    ["an Error", new Error("oops"), EIO, `${method} failed (EIO): oops`],
    ["nothing", undefined, EIO, `${method} failed (EIO): undefined`],
    ["a proxy", HERMIT, EIO, `${method} failed (EIO): something that cannot be printed`],
  ])("and rejects it with %s has failed, and is not flushed", async (_, reason, number, line) => {
    const lines: string[] = [];
    const device = new Shadow(4096);
    device.faults.set(method, () => Promise.reject(reason));
    expect(await call(new Dispatch(device, { log: (text) => lines.push(text) }))).toBe(number);
    expect(lines).toEqual([line]);
    expect(device.calls).toHaveLength(1);
  });
});

describe.each(CALLS)("a %s that returns what has a method then", (method, call) => {
  test.each<[string, () => Promise<void>, number, string[]]>([
    ["is done when that says so", () => lazily(() => undefined), 0, []],
    [
      "fails when that does",
      () =>
        lazily(() => {
          throw new ErrnoError("ENOSPC", "disk full");
        }),
      ENOSPC,
      [`${method} failed: disk full`],
    ],
    ["fails when it cannot be looked at", untouchable, EIO, [`${method} failed (EIO): hands off`]],
    ["fails when it cannot be called", stubborn, EIO, [`${method} failed (EIO): hands off`]],
    [
      "is done once",
      () =>
        thenable((resolve, reject) => {
          resolve(undefined);
          reject(new Error("twice"));
        }),
      0,
      [],
    ],
  ])("%s", async (_, returned, status, expected) => {
    const lines: string[] = [];
    const device = new Shadow(4096);
    device.faults.set(method, returned);
    expect(await call(new Dispatch(device, { log: (line) => lines.push(line) }))).toBe(status);
    expect(lines).toEqual(expected);
  });
});

test("an admit that throws refuses the write, and a landed that does fails it", () => {
  const lines: string[] = [];
  const memory = { address: 4096, admit: no, landed: no };
  const dispatch = new Dispatch(
    { size: 4096, memory, read: () => undefined, write: () => undefined },
    { log: (line) => lines.push(line) },
  );
  expect([dispatch.checkWrite(0, 512, false), dispatch.completeWrite(0, 512, false)]).toEqual([EIO, EIO]);
  expect(dispatch.landed(0, 512)).toBe(EIO);
  const landed = "memory.landed failed (EIO): not me";
  expect(lines).toEqual(["memory.admit failed (EIO): not me", landed, landed]);
});

/** A method as in a program without types. */
function returnSeven(): void | Promise<void> {
  return JSON.parse("7");
}

test.each(CALLS)("a %s that returns a value is EIO, and is not flushed", (method, call) => {
  const lines: string[] = [];
  const calls: string[] = [];
  const device: BlockDevice = {
    size: 4096,
    read: returnSeven,
    write: returnSeven,
    flush: () => void calls.push("flush"),
  };
  const whole: BlockDevice = { ...device, trim: returnSeven, writeZeroes: returnSeven };
  const failing = method === "flush" ? { ...whole, flush: returnSeven } : whole;
  expect(call(new Dispatch(failing, { log: (line) => lines.push(line) }))).toBe(EIO);
  expect(lines).toEqual([
    `${method} failed (EIO): a value was returned, where nothing or a promise is expected`,
  ]);
  expect(calls).toEqual([]);
});
