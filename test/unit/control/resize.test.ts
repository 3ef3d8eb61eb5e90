/** Goal: whatever fails in a resize, no user sees bytes that do not exist, or loses bytes that it knows of. */
import { expect, test } from "bun:test";
import { resize } from "../../../src/control/resize.ts";
import { Dispatch } from "../../../src/dispatch.ts";
import { answerAbout, type Subject } from "../../../src/control/commands.ts";
import { PROTOCOL } from "../../../src/control/handover.ts";

const BLOCK = 512;

/** A device of eight blocks, the calls to it and its transport in order, and which calls are refused. */
function subject(refuses: "nothing" | "device" | "node" = "nothing", ownSize = 16 * BLOCK) {
  const steps: string[] = [];
  const device = {
    size: 8 * BLOCK,
    read: () => undefined,
    async resize(size: number | undefined) {
      await Bun.sleep(0);
      steps.push(`device ${size ?? "own"} while users know ${dispatch.size}`);
      if (refuses === "device") throw new Error("no space");
      this.size = size ?? ownSize;
    },
  };
  const dispatch = new Dispatch(device);
  const transport = {
    path: "unix:/x",
    checkResizable: () => undefined,
    showSize: (size: number) => {
      steps.push(`node ${size}`);
      if (refuses === "node") throw new Error("the kernel refuses");
    },
  };
  // The other members of a subject are not used.
  const about = { dispatch, transport } as unknown as Subject;
  return { about, dispatch, device, steps };
}

test("it grows from below, and shrinks from above", async () => {
  const { about, dispatch, steps } = subject();
  expect(await resize(about, {})).toEqual({ size: 16 * BLOCK });
  expect(await resize(about, { size: 4 * BLOCK, force: true })).toEqual({ size: 4 * BLOCK });
  expect(steps).toEqual([
    `device own while users know ${8 * BLOCK}`,
    `node ${16 * BLOCK}`,
    `node ${4 * BLOCK}`,
    `device ${4 * BLOCK} while users know ${4 * BLOCK}`,
  ]);
  expect([dispatch.checkRead(3 * BLOCK, BLOCK), dispatch.checkRead(4 * BLOCK, BLOCK)]).toEqual([0, 22]);
});

test.each([
  ["device", { size: 16 * BLOCK }, "no space"],
  ["node", { size: 16 * BLOCK }, "the kernel refuses"],
  ["node", { size: 4 * BLOCK, force: true }, "the kernel refuses"],
  ["nothing", { size: 4 * BLOCK }, "perhaps in use by clients that know its size"],
  ["nothing", { size: 1000 }, `not a whole number of blocks of ${BLOCK}: give 1024`],
  ["nothing", { size: "1" }, '"1" is not a size'],
  ["nothing", { size: -512 }, "is not a size"],
] as const)("what %s refuses leaves the size as it is: %p", async (refuses, request, line) => {
  const { about, dispatch } = subject(refuses);
  expect(await resize(about, request).catch(String)).toContain(line);
  expect(dispatch.size).toBe(8 * BLOCK);
});

test("one that has become smaller by itself is not shrunk unasked", async () => {
  const { about, dispatch } = subject("nothing", 4 * BLOCK);
  expect(await resize(about, {}).catch(String)).toContain(`give SIZE, ${4 * BLOCK},`);
  expect(dispatch.size).toBe(8 * BLOCK);
});

test("of two at once the second is told to come again", async () => {
  const { about } = subject();
  const [first, second] = [resize(about, {}), resize(about, {}).catch(String)];
  expect(await second).toContain("is being resized");
  expect(await first).toEqual({ size: 16 * BLOCK });
});

test("a device is resized or handed over, but not both at once: the next server would not know of it", async () => {
  const { about } = subject();
  const transport = { ...about.transport, handover: {} } as unknown as Subject["transport"];
  const answer = answerAbout({ ...about, transport });
  const gone = new AbortController();
  const asker = { gone: gone.signal, stay: () => undefined };
  const begin = { command: "handover-begin", protocol: PROTOCOL };
  const resizing = answer({ command: "resize" }, asker);
  expect(() => answer(begin, asker)).toThrow("is being resized");
  await resizing;
  await answer(begin, asker);
  expect(() => answer({ command: "resize" }, asker)).toThrow("is being taken over");
  gone.abort();
  expect(await answer({ command: "resize" }, asker)).toEqual({ size: 16 * BLOCK });
});
