/**
 * Shortens a failing list as long as it still fails (delta debugging: Zeller, 1999): leaves out halves, then quarters
 * and so on down to single items.
 * @param fails tries a part of the list.
 * @param least the fewest items to try.
 */
export async function fewest<Item>(
  items: readonly Item[],
  fails: (candidate: readonly Item[]) => Promise<boolean>,
  least: number,
): Promise<readonly Item[]> {
  let best = items;
  for (let count = Math.ceil(best.length / 2); count >= 1; count = count === 1 ? 0 : Math.ceil(count / 2)) {
    // From the front: the item that shows the failure is often the last one.
    for (let start = 0; start < best.length;) {
      const candidate = best.toSpliced(start, count);
      if (candidate.length >= least && candidate.length < best.length && (await fails(candidate)))
        best = candidate;
      else start += count;
    }
  }
  return best;
}
