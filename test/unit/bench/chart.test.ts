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
  // Every element is closed, by itself or by its end.
  const open = [...chart.matchAll(/<(\w+)\b[^>]*(?<!\/)>/g)].map(([, name]) => name);
  const closed = [...chart.matchAll(/<\/(\w+)>/g)].map(([, name]) => name);
  expect(open.toSorted()).toEqual(closed.toSorted());
  expect(chart.replace("http://www.w3.org/2000/svg", "")).not.toMatch(
    /https?:|@import|@font-face|<script|url\(/,
  );
});

test("has colours for light and dark pages", () => {
  expect(chart).toContain("@media (prefers-color-scheme: dark)");
});

test("has one bar for each of ours in each cell that has a peer, and a dot for each peer", () => {
  // The page, the key, and the bar.
  expect(elements(chart, "rect").length).toBe(3);
  // The key of two, and two dots.
  expect(elements(chart, "circle").length).toBe(4);
  expect(chart).not.toContain("128k trim");
});

test("draws a bar as long as the ratio, on a scale that begins at nothing", () => {
  const barOf = (rates: readonly number[]): number =>
    Number(elements(drawChart(withRates(rates)), "rect")[2]?.["width"]);
  // Both pictures reach to 3.
  expect(barOf([250, 250]) / barOf([210, 210])).toBeCloseTo(250 / 210, 1);
  const best = elements(chart, "line").find(({ class: style }) => style === "best");
  const spread = elements(chart, "line").find(({ class: style }) => style === "spread");
  const zero = Number(elements(chart, "rect")[2]?.["x"]);
  const unit = Number(best?.["x1"]) - zero;
  expect((Number(spread?.["x1"]) - zero) / unit).toBeCloseTo(2, 1);
  expect((Number(spread?.["x2"]) - zero) / unit).toBeCloseTo(2.2, 1);
});

test("shows text as it is", () => {
  expect(chart).toContain("RAM &lt;disk>");
  expect(chart).toContain("2.10× nbdkit");
});

test("says how ours does beside the same in C, right of what it does beside the best peer", () => {
  const twin = drawChart(WITH_TWIN);
  expect(twin).toContain(">to C</text>");
  const at = (content: string): number =>
    Number(new RegExp(`<text x="([\\d.]+)"[^>]*>${content}</text>`).exec(twin)?.[1]);
  // The one begins where it stands, the other ends there.
  expect(at("0\\.76")).toBeGreaterThan(at("2\\.10× nbdkit") + 150);
  expect(elements(twin, "circle").length).toBe(4);
  expect(chart).not.toContain("to C");
});

test("leaves out what is compared with ourselves alone", () => {
  expect(drawChart({ ...RESULTS, async: SUITE })).toBe(chart);
});
