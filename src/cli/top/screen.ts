/** A frame of "tsbuse top": lines of text, none wider than the terminal. */
import type { Kind } from "../../queues/ledger.ts";
import { formatDuration } from "../../values/duration.ts";
import { formatSize } from "../text.ts";
import type { DeviceState } from "./device-state.ts";
import type { Latency, Rates } from "./rates.ts";

export interface Frame {
  readonly columns: number;
  /** The most lines; Infinity: as many as it takes. */
  readonly rows: number;
  /** Whether the terminal shows more than ASCII. */
  readonly isUnicode: boolean;
  /** `12:00:05`. */
  readonly time: string;
  readonly seconds: number;
  /** The last line, such as "q to quit". */
  readonly hint: string;
}

const LABELS: Readonly<Record<Kind, string>> = {
  read: "read",
  write: "write",
  fua: "write FUA",
  flush: "flush",
  trim: "trim",
  zero: "zeroes",
  other: "other",
};
const LABEL_WIDTH = 10;
const NUMBER_WIDTH = 7;
const BARS = { unicode: " ▁▂▃▄▅▆▇█", ascii: " .:-=+*#@" } as const;
const SHADES = { unicode: "·░▒▓█", ascii: ".:+#@" } as const;

/** @param history requests per second of the ticks so far, by device. */
export function drawFrame(
  devices: readonly DeviceState[],
  history: ReadonlyMap<string, readonly number[]>,
  frame: Frame,
): string[] {
  const blocks = devices.map((device) => drawDevice(device, history.get(keyOf(device)) ?? [], frame));
  const lines = [headline(devices, frame)];
  if (devices.length === 0) lines.push("", "tsbuse serves nothing here for now.");
  const all = blocks.reduce((sum, block) => sum + block.lines.length + 1, lines.length);
  // If there is no room for everything, each device gets two lines.
  for (const block of blocks) lines.push(...(all <= frame.rows ? ["", ...block.lines] : block.brief));
  const left = lines.length - frame.rows;
  if (left > 0)
    lines.splice(
      frame.rows - 1,
      lines.length,
      "more devices than lines: give a TARGET, or make the window larger",
    );
  return lines.map((line) => cut(line, frame.columns));
}

/** Identifies a device from tick to tick. */
export function keyOf({ path, pid }: DeviceState): string {
  return `${pid} ${path ?? ""}`;
}

function headline(devices: readonly DeviceState[], { time, seconds, hint, columns }: Frame): string {
  const count = devices.length === 1 ? "1 device" : `${devices.length} devices`;
  const left = `tsbuse top  ${time}  ${count}, ${seconds.toFixed(1)} s`;
  return left + hint.padStart(Math.max(hint.length + 2, columns - left.length));
}

interface Block {
  readonly lines: readonly string[];
  /** The lines to show if there is no room for all. */
  readonly brief: readonly string[];
}

function drawDevice(device: DeviceState, history: readonly number[], frame: Frame): Block {
  const { path, driver, size, pid, mounts, holders, words, rates, queues } = device;
  const uses = [...mounts.map((mount) => `on ${mount}`), ...holders.map((holder) => `under ${holder}`)];
  const facts = [
    path === undefined ? "(unknown)" : nameOf(path),
    ...(driver === undefined ? [] : [driver]),
    ...(size === undefined ? [] : [formatSize(size)]),
    ...(device.readOnly ? ["read-only"] : []),
    ...(queues > 1 && driver !== "server" ? [`${queues} queues`] : []),
    `pid ${pid}${device.uid === undefined ? "" : ` (uid ${device.uid})`}`,
    ...uses,
  ];
  const [head, summary] = [
    facts.join("  "),
    rates === undefined ? whyNothing(device) : totals(device, rates),
  ];
  const lines = [head, ...(words.length === 0 ? [] : [`  ${words.join(" ")}`]), summary];
  if (rates !== undefined) lines.push(...figures(device, rates), ...pictures(rates, history, frame));
  return { lines: lines.map(printable), brief: [head, summary].map(printable) };
}

function figures({ oldest }: DeviceState, rates: Rates): string[] {
  const lines = kindTable(rates);
  if (oldest !== undefined) lines.push(oldestLine(oldest));
  if (rates.layers.length > 0) lines.push(layerLine(rates));
  return lines;
}

/** A server on a Unix socket is better known as `unix:PATH`, the target that it was given. */
function nameOf(path: string): string {
  const socket = path.startsWith("nbd+unix:") ? URL.parse(path)?.searchParams.get("socket") : undefined;
  return typeof socket !== "string" ? path : `unix:${socket}`;
}

function whyNothing({ state, silentSeconds, reason }: DeviceState): string {
  if (state === "silent")
    return `  does not answer, for ${silentSeconds.toFixed(0)} s: it is stopped, or its device holds it up`;
  return state === "other" ? `  no figures: ${reason ?? "it is of another version"}` : "  ...";
}

function totals({ inFlight, errorsTotal }: DeviceState, rates: Rates): string {
  const errors = Object.entries(errorsTotal).map(([name, count]) => `${name} ${count}`);
  return [
    `  ${short(rates.iops)} IOPS`,
    `read ${rate(rates.readBytesPerSecond)}`,
    `written ${rate(rates.writtenBytesPerSecond)}`,
    `depth ${rates.depth.toFixed(1)} (now ${inFlight})`,
    errors.length === 0 ? "no errors" : `errors: ${errors.join(", ")}`,
  ].join("  ");
}

function kindTable({ kinds }: Rates): string[] {
  const rows = Object.entries(kinds);
  if (rows.length === 0) return [];
  const heading = ["IOPS", "B/s", "errors", "q p50", "q p99", "q max", "d p50", "d p99", "d max"];
  return [
    tableLine("", heading),
    ...rows.map(([kind, { iops, bytesPerSecond, errors, queue, device }]) =>
      tableLine(LABELS[isKind(kind) ? kind : "other"], [
        short(iops),
        bytesPerSecond === 0 ? "-" : short(bytesPerSecond, 1024),
        errors === 0 ? "-" : short(errors),
        ...latencies(queue),
        ...latencies(device),
      ]),
    ),
  ];
}

function tableLine(label: string, cells: readonly string[]): string {
  return `  ${label.padEnd(LABEL_WIDTH)}${cells.map((cell) => cell.padStart(NUMBER_WIDTH)).join("")}`;
}

function isKind(name: string): name is Kind {
  return Object.hasOwn(LABELS, name);
}

function latencies({ p50, p99, max }: Latency): string[] {
  return [p50, p99, max].map(formatDuration);
}

function oldestLine({ kind, offset, length, seconds }: NonNullable<DeviceState["oldest"]>): string {
  const what = kind === "flush" ? "" : ` of ${length} bytes at ${offset}`;
  return `  oldest in flight: ${LABELS[kind]}${what}, for ${formatDuration(seconds * 1e6)}`;
}

function layerLine({ layers }: Rates): string {
  const each = layers.map(
    ({ name, requests, microseconds }) => `${name} ${requests === 0 ? "-" : formatDuration(microseconds)}`,
  );
  return `  time in each layer: ${each.join(", ")}`;
}

function pictures({ heat }: Rates, history: readonly number[], { isUnicode }: Frame): string[] {
  const kind = isUnicode ? "unicode" : "ascii";
  const lines = [`  IOPS   ${draw(history, BARS[kind])}`];
  if (heat.read.some((bytes) => bytes > 0)) lines.push(`  read   ${draw(heat.read, SHADES[kind])}`);
  if (heat.write.some((bytes) => bytes > 0)) lines.push(`  write  ${draw(heat.write, SHADES[kind])}`);
  return lines;
}

/** Each number as a sign: the first for 0, the last for the largest number. */
function draw(numbers: readonly number[], signs: string): string {
  const all = [...signs];
  const top = Math.max(...numbers, Number.MIN_VALUE);
  return numbers.map((number) => all[Math.ceil((number / top) * (all.length - 1))] ?? " ").join("");
}

/** `512`, `12.3k`, `1.2M`: five characters at most. */
export function short(number: number, thousand = 1000): string {
  let [value, unit] = [number, 0];
  const units = ["", "k", "M", "G", "T"];
  while (value >= 999.5 && unit < units.length - 1) [value, unit] = [value / thousand, unit + 1];
  const digits = value >= 99.95 || (unit === 0 && Number.isInteger(value)) ? 0 : 1;
  return `${value.toFixed(digits)}${units[unit]}`;
}

function rate(bytesPerSecond: number): string {
  return `${formatSize(Math.round(bytesPerSecond))}/s`;
}

/** Others chose names and command lines: these must not move the cursor. */
function printable(line: string): string {
  return line.replaceAll(/\p{Cc}/gu, " ");
}

function cut(line: string, columns: number): string {
  const signs = [...line];
  return signs.length <= columns ? line : signs.slice(0, columns).join("");
}
