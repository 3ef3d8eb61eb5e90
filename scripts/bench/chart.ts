/** Results as a picture: for each cell, how often tsbuse serves what the best peer does. */
import { DARK, LIGHT, svgFile, text } from "../lib/svg.ts";
import {
  compareToBest,
  compareToC,
  type Comparison,
  contestantsIn,
  type GroupResult,
  type Results,
  type SuiteName,
  SUITES,
} from "./results.ts";
import { median } from "./statistics.ts";

const WIDTH = 860;
const LABELS_WIDTH = 250;
const VALUES_WIDTH = 150;
/** The width of the extra column, where the chart also compares with a C version of ours. */
const TO_C_WIDTH = 50;
const MARGIN = 16;
const ROW_HEIGHT = 21;
const BAR_HEIGHT = 11;
const TITLE_HEIGHT = 44;
const LEGEND_HEIGHT = 84;
/** The vertical positions of our marks and of the peers'. */
const LEGEND_LINES = [46, 68] as const;
const AXIS_HEIGHT = 22;

const PANEL_TITLES: Readonly<Record<SuiteName, string>> = {
  native: "Unix socket",
  kernel: "kernel driver",
  async: "promises",
};

/** Distinct in light and dark mode, and for colour-blind readers. */
const OUR_COLOURS = ["#3b82c4", "#86bdea", "#8a63d2", "#bfa6ef", "#2a9d8f"] as const;
const PEER_COLOURS = ["#e08a1e", "#7a8793", "#c2477f", "#6aa84f"] as const;

const STYLE = `
  .page { fill: ${LIGHT.page} } text { fill: ${LIGHT.text}; font: 12px system-ui, sans-serif }
  .title { font-weight: 600; font-size: 13px } .quiet { fill: ${LIGHT.quiet} } .right { text-anchor: end }
  .middle { text-anchor: middle } .grid { stroke: #d1d9e0 } .best { stroke: ${LIGHT.quiet}; stroke-width: 1.5 }
  .spread { stroke: ${LIGHT.text}; stroke-width: 1.2 }
  @media (prefers-color-scheme: dark) {
    .page { fill: ${DARK.page} } text { fill: ${DARK.text} } .quiet { fill: ${DARK.quiet} } .grid { stroke: #30363d }
    .best { stroke: ${DARK.quiet} } .spread { stroke: ${DARK.text} }
  }
`;

/** One of ours in one cell. */
interface Row {
  readonly name: string;
  readonly comparison: Comparison;
  readonly colour: string;
  /** The ratio to the same server in C, where that was measured. */
  readonly toC: number | undefined;
  /** The peers' rates as fractions of the best peer's. */
  readonly peers: readonly { readonly part: number; readonly colour: string }[];
}

interface Panel {
  readonly title: string;
  readonly rows: readonly Row[];
}

/** The text of the file. Leaves out groups without a peer. */
export function drawChart(results: Results): string {
  const ours = namesOf(results, "ours");
  const peers = namesOf(results, "peer");
  const panels = chartGroups(results).map(([suite, group]) => panelOf(suite, group, ours, peers));
  let y = LEGEND_HEIGHT;
  const parts = [drawLegend(ours, peers)];
  for (const panel of panels) {
    parts.push(drawPanel(panel, y));
    y += panelHeight(panel);
  }
  return svgFile({
    width: WIDTH,
    height: y + MARGIN,
    label: "How often tsbuse serves what the best other server does, for each shape of load",
    style: STYLE,
    parts,
  });
}

/** The suites that compare with others. The suite of promises compares tsbuse with itself. */
function chartGroups(results: Results): (readonly [SuiteName, GroupResult])[] {
  return SUITES.filter((name) => name !== "async").flatMap((name) =>
    (results[name]?.groups ?? [])
      .filter(({ id }) => id !== "promises")
      .map((group) => [name, group] as const),
  );
}

function namesOf(results: Results, kind: "ours" | "peer"): string[] {
  const all = chartGroups(results).flatMap(([, { contestants }]) => contestants);
  return [...new Set(all.filter((one) => one.kind === kind).map(({ id }) => id))];
}

function panelOf(
  suite: SuiteName,
  group: GroupResult,
  ours: readonly string[],
  peers: readonly string[],
): Panel {
  const rows = group.cells.flatMap((result) =>
    compareToBest(group, result).map((comparison): Row => {
      const rateOf = (id: string): number => median(result.figures[id]?.rates ?? []);
      return {
        name: result.name,
        comparison,
        toC: compareToC(group, result, comparison.ours)?.median,
        colour: colourOf(OUR_COLOURS, ours.indexOf(comparison.ours)),
        peers: contestantsIn(group, result, "peer").map((id) => ({
          part: rateOf(id) / rateOf(comparison.peer),
          colour: colourOf(PEER_COLOURS, peers.indexOf(id)),
        })),
      };
    }),
  );
  return { title: `${PANEL_TITLES[suite]}: ${group.title}`, rows };
}

function colourOf(colours: readonly string[], index: number): string {
  return colours[index % colours.length] ?? "#000000";
}

interface Scale {
  readonly max: number;
  /** The x of its right end. */
  readonly right: number;
  readonly x: (ratio: number) => number;
}

function scaleOf(rows: readonly Row[]): Scale {
  // The bars set the scale: one outlier must not make them all short, so its line ends at the edge.
  const max = Math.ceil(Math.max(2, ...rows.map(({ comparison }) => comparison.ratio.median)) + 0.2);
  const width = WIDTH - LABELS_WIDTH - VALUES_WIDTH - toCWidth(rows);
  const right = LABELS_WIDTH + width;
  return { max, right, x: (ratio) => round(LABELS_WIDTH + Math.min(1, ratio / max) * width) };
}

function toCWidth(rows: readonly Row[]): number {
  return rows.some(({ toC }) => toC !== undefined) ? TO_C_WIDTH : 0;
}

function panelHeight({ rows }: Panel): number {
  return TITLE_HEIGHT + rows.length * ROW_HEIGHT + AXIS_HEIGHT;
}

function drawPanel({ title, rows }: Panel, top: number): string {
  const scale = scaleOf(rows);
  const first = top + TITLE_HEIGHT;
  const bottom = first + rows.length * ROW_HEIGHT;
  const ticks = Array.from({ length: scale.max + 1 }, (_, ratio) => ratio);
  return [
    text(MARGIN, top + 32, title, "title"),
    ...ticks.map((ratio) => line(scale.x(ratio), first - 4, scale.x(ratio), bottom, "grid")),
    ...ticks.map((ratio) => text(scale.x(ratio), bottom + 14, `${ratio}×`, "quiet middle")),
    ...(toCWidth(rows) > 0 ? [text(WIDTH - MARGIN, top + 32, "to C", "quiet right")] : []),
    ...rows.map((row, index) => drawRow(row, first + index * ROW_HEIGHT, scale)),
    line(scale.x(1), first - 4, scale.x(1), bottom, "best"),
  ].join("\n");
}

function drawRow({ name, comparison, colour, toC, peers }: Row, top: number, scale: Scale): string {
  const { ratio, peer } = comparison;
  const middle = top + ROW_HEIGHT / 2;
  const start = scale.x(0);
  const value = `${ratio.median.toFixed(2)}× ${peer}`;
  return [
    text(LABELS_WIDTH - 10, middle + 4, name, "right"),
    `<rect x="${start}" y="${middle - BAR_HEIGHT / 2}" width="${round(scale.x(ratio.median) - start)}" height="${BAR_HEIGHT}" fill="${colour}"/>`,
    line(scale.x(ratio.min), middle, scale.x(ratio.max), middle, "spread"),
    ...peers.map((one) => `<circle cx="${scale.x(one.part)}" cy="${middle}" r="3.5" fill="${one.colour}"/>`),
    text(scale.right + 12, middle + 4, value),
    ...(toC === undefined ? [] : [text(WIDTH - MARGIN, middle + 4, toC.toFixed(2), "right")]),
  ].join("\n");
}

/** One line for ours, with the colours of the bars, and one for the peers, with those of the dots. */
function drawLegend(ours: readonly string[], peers: readonly string[]): string {
  const [top, bottom] = LEGEND_LINES;
  const title =
    "Requests per second, as a multiple of the best other server's (more is better; the line is min to max)";
  return [
    text(MARGIN, 26, title, "title"),
    ...legendLine(ours, top, (x, index) => {
      const fill = colourOf(OUR_COLOURS, index);
      return `<rect x="${x}" y="${top - 6}" width="12" height="12" fill="${fill}"/>`;
    }),
    ...legendLine(peers, bottom, (x, index) => {
      const fill = colourOf(PEER_COLOURS, index);
      return `<circle cx="${x + 6}" cy="${bottom}" r="4" fill="${fill}"/>`;
    }),
  ].join("\n");
}

function legendLine(
  names: readonly string[],
  y: number,
  mark: (x: number, index: number) => string,
): readonly string[] {
  let x = MARGIN;
  return names.map((name, index) => {
    const entry = `${mark(x, index)}\n${text(x + 18, y + 4, name)}`;
    x += 40 + name.length * 7;
    return entry;
  });
}

function line(x1: number, y1: number, x2: number, y2: number, style: string): string {
  return `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" class="${style}"/>`;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
