/** A layer that counts. */
import { around, type Command, COMMANDS } from "./around.ts";
import { Histogram } from "./histogram.ts";
import type { Layer } from "./layer.ts";
import type { NamedLayer } from "./options.ts";
import { timed } from "./timed.ts";

/** The figures of one command so far. Times are in microseconds. */
export interface CommandStatistics {
  readonly requests: number;
  /** Bytes of the requests that succeeded. */
  readonly bytes: number;
  readonly errors: number;
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

/** Counts for {@link statsLayer}. They can be read at any time, even after the device is closed. */
export class RequestStatistics {
  readonly #counters = new Map(COMMANDS.map((command) => [command, new Counter()]));

  /** Adds a request that is done. */
  add(command: Command, bytes: number, microseconds: number, failed: boolean): void {
    this.#counters.get(command)?.add(bytes, microseconds, failed);
  }

  /** Zeroes for a command that was never used. */
  of(command: Command): CommandStatistics {
    return (this.#counters.get(command) ?? new Counter()).summary();
  }

  /** One line for each command that was used. */
  lines(): string[] {
    return COMMANDS.flatMap((command) => {
      const { requests, bytes, errors, p50, p99, max } = this.of(command);
      if (requests === 0) return [];
      const times = [p50, p99, max].map((time) => time.toFixed(time < 10 ? 1 : 0));
      return [
        `stats: ${command}: requests ${requests}, bytes ${bytes}, errors ${errors}, ` +
          `microseconds: median ${times[0]}, 99% ${times[1]}, longest ${times[2]}`,
      ];
    });
  }
}

class Counter {
  #requests = 0;
  #bytes = 0;
  #errors = 0;
  readonly #times = new Histogram();

  add(bytes: number, microseconds: number, failed: boolean): void {
    this.#requests += 1;
    if (failed) this.#errors += 1;
    else this.#bytes += bytes;
    this.#times.add(microseconds);
  }

  summary(): CommandStatistics {
    return {
      requests: this.#requests,
      bytes: this.#bytes,
      errors: this.#errors,
      p50: this.#times.percentile(0.5),
      p99: this.#times.percentile(0.99),
      max: this.#times.max,
    };
  }
}

export interface StatsOptions {
  /** Where to count. Default: an object of the layer's own, for `report` only. */
  readonly statistics?: RequestStatistics | undefined;
  /** Takes the lines when the device is closed. Default: none. */
  readonly report?: ((line: string) => void) | undefined;
}

/**
 * Counts requests, bytes, errors and how long they take.
 *
 * @example
 *     const statistics = new RequestStatistics();
 *     const device = statsLayer({ statistics })(new Ramdisk(2 ** 26));
 *     // …
 *     console.log(statistics.of("read").p99);
 */
export function statsLayer(options: StatsOptions = {}): Layer {
  return (device) => {
    const statistics = options.statistics ?? new RequestStatistics();
    const reportAll = (): void => {
      for (const line of statistics.lines()) options.report?.(line);
    };
    return around(
      "stats",
      device,
      ({ command, length }, proceed) =>
        timed(proceed, (microseconds, failure) =>
          statistics.add(command, length, microseconds, failure !== undefined),
        ),
      reportAll,
    );
  };
}

export const statsNamed: NamedLayer = {
  name: "stats",
  summary: "Count requests, bytes and time, and print them at the end",
  options: {},
  sparesDevice: false,
  make: (_, { report }) => statsLayer({ report }),
};
