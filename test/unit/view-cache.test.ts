/** Views of a buffer: each at the place asked for, and made once. */
import { expect, test } from "bun:test";
import { ViewCache } from "../../src/serving/view-cache.ts";

const BASE = 1024;
const ALIGNMENT = 4096;

test("the same view is given again, and no other for it", () => {
  const cache = new ViewCache(new ArrayBuffer(BASE + 2 ** 22), BASE, ALIGNMENT);
  const views = new Map<string, Uint8Array>();
  const each = (visit: (key: string, view: Uint8Array, position: number, length: number) => void): void => {
    for (let position = 0; position < 2 ** 19; position += ALIGNMENT) {
      for (const length of [512, 1024, 4096, 65_536, 2 ** 20]) {
        visit(`${position} ${length}`, cache.view(position, length), position, length);
      }
    }
  };
  each((key, view) => views.set(key, view));
  each((key, view, position, length) => {
    expect(views.get(key)).toBe(view);
    expect([view.byteOffset, view.length]).toEqual([BASE + position, length]);
  });
  expect(new Set(views.values()).size).toBe(views.size);
});

test("the longest payload and the last position have views of their own", () => {
  const buffer = new ArrayBuffer(2 ** 26);
  const cache = new ViewCache(buffer, 0, ALIGNMENT);
  // Neighbours whose keys would be the same if there were one length fewer.
  const longest = cache.view(0, 2 ** 25);
  const shortest = cache.view(ALIGNMENT, 512);
  expect([longest.byteOffset, longest.length]).toEqual([0, 2 ** 25]);
  expect([shortest.byteOffset, shortest.length]).toEqual([ALIGNMENT, 512]);
});

test("more views than it keeps are still right, and the oldest are let go", () => {
  const buffer = new ArrayBuffer(2 ** 25);
  const cache = new ViewCache(buffer, 0, ALIGNMENT);
  const first = cache.view(0, 512);
  for (let index = 0; index < 20_000; index += 1) {
    const position = ALIGNMENT * (index % 4096);
    const length = 512 * (1 + (index % 61));
    const view = cache.view(position, length);
    if (view.byteOffset !== position || view.length !== length)
      expect([position, length]).toEqual([view.byteOffset, view.length]);
  }
  const again = cache.view(0, 512);
  expect(again).not.toBe(first);
  expect([again.byteOffset, again.length]).toEqual([0, 512]);
});
