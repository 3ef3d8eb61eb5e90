/** What a serving process has counted, in Prometheus' text format (version 0.0.4): names, units and help of each. */
import { errnoName } from "../uapi/errno.ts";
import {
  BYTES,
  COUNT,
  errorCells,
  FAILED,
  kindCells,
  KINDS,
  oldestOf,
  QUEUED,
  QUEUED_BUCKETS,
  SERVED,
  SERVED_BUCKETS,
  sumLedgers,
} from "../queues/ledger.ts";
import { BUCKETS, firstOf } from "../values/log-buckets.ts";
import type { Subject } from "./commands.ts";

/** Buckets from a microsecond to 17 seconds, each twice as long as the one before: 2^octave nanoseconds. */
const FIRST_OCTAVE = 10;
const LAST_OCTAVE = 34;
const NANOSECONDS = 1e9;

type Labels = Readonly<Record<string, string>>;

/** Collects samples, metric by metric. */
class Text {
  readonly #lines: string[] = [];
  readonly #common: Labels;

  /** @param common labels of all samples but those of the process. */
  constructor(common: Labels) {
    this.#common = common;
  }

  metric(name: string, type: "counter" | "gauge" | "histogram", help: string): void {
    this.#lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`);
  }

  sample(name: string, value: number, labels: Labels = {}): void {
    const pairs = Object.entries({ ...this.#common, ...labels });
    this.#lines.push(
      `${name}{${pairs.map(([key, text]) => `${key}="${escaped(text)}"`).join(",")}} ${value}`,
    );
  }

  /** A metric of the process, with one sample. */
  plain(name: string, type: "counter" | "gauge", help: string, value: number): void {
    this.metric(name, type, help);
    this.#lines.push(`${name} ${value}`);
  }

  toString(): string {
    return `${this.#lines.join("\n")}\n`;
  }
}

function escaped(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}

/** All metrics with their present values. */
export function metricsText({ transport, dispatch, version }: Subject): string {
  const { ledgers, path } = transport;
  const cells = sumLedgers(ledgers);
  const kinds = KINDS.map((kind, index) => [kind, kindCells(cells, index)] as const);
  const text = new Text({ device: path });
  text.metric("tsbuse_info", "gauge", "What serves the device.");
  text.sample("tsbuse_info", 1, { version });
  text.metric("tsbuse_size_bytes", "gauge", "Size of the device.");
  text.sample("tsbuse_size_bytes", dispatch.size);
  const perKind = (name: string, help: string, place: number): void => {
    text.metric(name, "counter", help);
    for (const [command, own] of kinds) text.sample(name, own[place] ?? 0, { command });
  };
  perKind("tsbuse_requests_total", "Requests answered.", COUNT);
  perKind("tsbuse_request_errors_total", "Requests answered with an error.", FAILED);
  perKind("tsbuse_request_bytes_total", "Bytes of requests that succeeded.", BYTES);
  text.metric("tsbuse_errors_total", "counter", "Requests answered with an error, by errno.");
  for (const [number, count] of errorCells(cells).entries())
    if (count > 0)
      text.sample("tsbuse_errors_total", count, { errno: number === 0 ? "other" : errnoName(number) });
  histograms(text, "tsbuse_request_queue_seconds", "Time until the device got a request.", kinds, {
    buckets: QUEUED_BUCKETS,
    sum: QUEUED,
  });
  histograms(text, "tsbuse_request_device_seconds", "Time until the device was done with it.", kinds, {
    buckets: SERVED_BUCKETS,
    sum: SERVED,
  });
  text.metric("tsbuse_requests_in_flight", "gauge", "Requests that are not answered.");
  text.sample("tsbuse_requests_in_flight", transport.inFlight);
  text.metric(
    "tsbuse_oldest_request_seconds",
    "gauge",
    "Age of the oldest request that is not answered, or 0.",
  );
  const ages = ledgers.map((each) => oldestOf(each)?.ageMs ?? 0);
  text.sample("tsbuse_oldest_request_seconds", Math.max(0, ...ages) / 1000);
  ofProcess(text);
  return text.toString();
}

function histograms(
  text: Text,
  name: string,
  help: string,
  kinds: readonly (readonly [kind: string, cells: Float64Array])[],
  places: { readonly buckets: number; readonly sum: number },
): void {
  text.metric(name, "histogram", help);
  for (const [command, cells] of kinds) {
    const buckets = cells.subarray(places.buckets, places.buckets + BUCKETS);
    const counted = buckets.reduce((sum, count) => sum + count, 0);
    // Requests that took no time are in no bucket. Another thread counts meanwhile: keep the total at least the sum.
    const total = Math.max(cells[COUNT] ?? 0, counted);
    let below = total - counted;
    let bucket = 0;
    for (let octave = FIRST_OCTAVE; octave <= LAST_OCTAVE; octave += 1) {
      for (; bucket < firstOf(octave); bucket += 1) below += buckets[bucket] ?? 0;
      text.sample(`${name}_bucket`, below, { command, le: String(2 ** octave / NANOSECONDS) });
    }
    text.sample(`${name}_bucket`, total, { command, le: "+Inf" });
    text.sample(`${name}_sum`, (cells[places.sum] ?? 0) / 1000, { command });
    text.sample(`${name}_count`, total, { command });
  }
}

/** The metrics of a process, under their usual names. */
function ofProcess(text: Text): void {
  const { user, system } = process.cpuUsage();
  const started = (performance.timeOrigin / 1000).toFixed(3);
  text.plain(
    "process_cpu_seconds_total",
    "counter",
    "Processor time, user and system.",
    (user + system) / 1e6,
  );
  text.plain("process_resident_memory_bytes", "gauge", "Resident memory.", process.memoryUsage.rss());
  text.plain("process_start_time_seconds", "gauge", "When the process was started.", Number(started));
}
