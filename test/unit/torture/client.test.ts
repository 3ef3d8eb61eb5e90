/** Goal: a torture client distinguishes what may be on a device from what may not. */
import { describe, expect, test } from "bun:test";
import { faultOf, fillBlock } from "../../../scripts/torture/client/contents.ts";
import { Journal, readJournal } from "../../../scripts/torture/client/journal.ts";
import { TemporaryDirectory } from "../../support/temporary.ts";

const BLOCK = 5;
const WORDS = 2048 / 4;
const SECTOR_WORDS = 128;

/** A block whose sectors are of these generations. */
function found(...generations: readonly number[]): Uint32Array {
  const words = new Uint32Array(WORDS);
  for (const [sector, generation] of generations.entries()) {
    const whole = new Uint32Array(WORDS);
    fillBlock(whole, BLOCK, generation);
    const at = sector * SECTOR_WORDS;
    words.set(whole.subarray(at, at + SECTOR_WORDS), at);
  }
  return words;
}

function spoiled(at: number): Uint32Array {
  const words = found(3, 3, 3, 3);
  words[at] = 1;
  return words;
}

function misplaced(): Uint32Array {
  const words = new Uint32Array(WORDS);
  fillBlock(words, BLOCK + 1, 3);
  return words;
}

describe("generation 3 was acknowledged, 5 was begun", () => {
  test.each([
    ["what was acknowledged", found(3, 3, 3, 3), undefined],
    ["a later one that was begun", found(5, 5, 5, 5), undefined],
    ["a write that was torn", found(4, 3, 5, 3), undefined],
    [
      "an older one",
      found(3, 2, 3, 3),
      /^block 5, byte 512: a write that was acknowledged is lost: generation 2/,
    ],
    ["zeroes", found(3, 3, 3, 0), /^block 5, byte 1536: a write that was acknowledged is lost: generation 0/],
    ["one that was never written", found(6, 3, 3, 3), /^block 5, byte 0: generation 6 was never written/],
    ["another word", spoiled(WORDS - 1), /^block 5, byte 1536: not what generation 3 is/],
    ["another block", misplaced(), /^block 5, byte 0: not what generation 3 is/],
  ] as const)("%s", (_, words, fault) => {
    const state = { acknowledged: 3, begun: 5 };
    if (fault === undefined) expect(faultOf(words, BLOCK, state)).toBeUndefined();
    else expect(faultOf(words, BLOCK, state)).toMatch(fault);
  });

  test("of a block that was never written, zeroes alone are right", () => {
    expect(faultOf(found(0, 0, 0, 0), BLOCK, { acknowledged: 0, begun: 0 })).toBeUndefined();
    expect(faultOf(found(0, 1, 0, 0), BLOCK, { acknowledged: 0, begun: 0 })).toMatch(/never written/);
  });
});

test("a journal says of each block what was acknowledged, and what was begun", () => {
  using directory = new TemporaryDirectory();
  const path = directory.join("journal");
  const journal = new Journal(path);
  for (const [kind, block, generation] of [
    ["begun", 1, 1],
    ["begun", 2, 1],
    ["done", 2, 1],
    ["failed", 1, 1],
    ["flushed", 2, 1],
    ["begun", 2, 2],
  ] as const) {
    journal.put(kind, block, generation);
  }
  journal.close();
  const state = readJournal(path);
  expect([...state.blocks]).toEqual([
    [1, { acknowledged: 0, begun: 1 }],
    [2, { acknowledged: 1, begun: 2 }],
  ]);
  expect([state.done, state.failed]).toEqual([2, 1]);
});
