import { expect, test } from "bun:test";
import { drawChart } from "../../../scripts/bench/chart.ts";
import { RESULTS, SUITE, WITH_TWIN, withRates } from "./sample.ts";

/** Attributes of all elements of a kind. */
function elements(svg: string, name: string): Record<string, string>[] {
  return [...svg.matchAll(new RegExp(`<${name}\\b([^>]*)>`, "g"))].map(([, attributes = ""]) =>
    Object.fromEntries(
      [...attributes.matchAll(/([\w-]+)="([^"]*)"/g)].map(([, key = "", value = ""]) => [key, value]),
    ),
  );
}

const chart = drawChart(RESULTS);

test("is well-formed, and needs nothing from elsewhere", () => {
  // Every element is closed, by itself or by an end tag.
  const open = [...chart.matchAll(/<(\w+)\b[^>]*(?<!\/)>/g)].map(([, name]) => name);
  const closed = [...chart.matchAll(/<\/(\w+)>/g)].map(([, name]) => name);
  expect(open.toSorted()).toEqual(closed.toSorted());
  expect(chart.replace("http://www.w3.org/2000/svg", "")).not.toMatch(
    /https?:|@import|@font-face|<script|url\(/,
  );
});

test("draws a bar as long as the ratio, on a scale that begins at nothing", () => {
  const barOf = (rates: readonly number[]): number =>
    Number(elements(drawChart(withRates(rates)), "rect").at(-1)?.["width"]);
  // The last rectangle is the bar. Both pictures reach to 3.
  expect(barOf([250, 250]) / barOf([210, 210])).toBeCloseTo(250 / 210, 1);
  const best = elements(chart, "line").find(({ class: style }) => style === "best");
  const spread = elements(chart, "line").find(({ class: style }) => style === "spread");
  const zero = Number(elements(chart, "rect").at(-1)?.["x"]);
  const unit = Number(best?.["x1"]) - zero;
  expect((Number(spread?.["x1"]) - zero) / unit).toBeCloseTo(2, 1);
  expect((Number(spread?.["x2"]) - zero) / unit).toBeCloseTo(2.2, 1);
});

test("shows text as it is, and nothing of what has no peer or is compared with ourselves alone", () => {
  expect(chart).toContain("RAM &lt;disk>");
  expect(chart).toContain("2.10× nbdkit");
  expect(chart).not.toContain("128k trim");
  expect(drawChart({ ...RESULTS, async: SUITE })).toBe(chart);
});

test("says how ours does beside the same in C, right of what it does beside the best peer", () => {
  const twin = drawChart(WITH_TWIN);
  expect(twin).toContain(">to C</text>");
  const at = (content: string): number =>
    Number(new RegExp(`<text x="([\\d.]+)"[^>]*>${content}</text>`).exec(twin)?.[1]);
  // One label begins at its position, the other ends there.
  expect(at("0\\.76")).toBeGreaterThan(at("2\\.10× nbdkit") + 150);
  expect(chart).not.toContain("to C");
});
