/** A layer that makes a device fail, to see how its users react. */
import { existsSync } from "node:fs";
import { ErrnoError } from "../errors.ts";
import { anySeed, Random, SEED_MAX } from "../values/random.ts";
import { errno, type ErrnoCode } from "../uapi/errno.ts";
import { around, type Command, COMMANDS, type Request } from "./around.ts";
import { fileOption } from "./files.ts";
import type { Layer } from "./layer.ts";
import { type NamedLayer, oneOf, option, wholeNumber } from "./options.ts";

export interface ErrorOptions {
  /** The fraction of requests that fail, from 0 to 1. Default 1. */
  readonly rate?: number | undefined;
  /** The error that they fail with. Default EIO. */
  readonly errno?: ErrnoCode | undefined;
  /** The only requests that fail. Default: all. */
  readonly command?: Command | undefined;
  /** A path: requests fail only while there is a file. */
  readonly trigger?: string | undefined;
  /** Requests in the same order with the same seed fail at the same places. */
  readonly seed?: number | undefined;
}

/** A request that fails does not reach the device. */
export function errorLayer(options: ErrorOptions = {}): Layer {
  const { rate = 1, command, trigger } = options;
  const code = options.errno ?? "EIO";
  return (device) => {
    const random = new Random(options.seed ?? anySeed());
    const fails = (request: Request): boolean =>
      (command === undefined || request.command === command) &&
      (trigger === undefined || existsSync(trigger)) &&
      random.fraction() < rate;
    return around("error", device, (request, proceed) => {
      if (fails(request)) throw new ErrnoError(code, `${code} by the error layer`);
      return proceed();
    });
  };
}

const OPTIONS = {
  rate: option({
    value: "RATE",
    description: "How many fail: 0.01, or 1% (default 100%)",
    expects: "a number from 0 to 1, or from 0% to 100%",
    parse: parseRate,
  }),
  errno: option({
    value: "ERRNO",
    description: "With what: ENOSPC for example (default EIO)",
    expects: "the name of an error, such as EIO or ENOSPC",
    words: Object.keys(errno),
    parse: (text) => (isErrnoCode(text) ? text : undefined),
  }),
  command: option({
    value: "COMMAND",
    description: `Only one of ${COMMANDS.join(", ")}`,
    ...oneOf(COMMANDS),
  }),
  trigger: fileOption("Only while FILE exists"),
  seed: option({
    value: "N",
    description: "The same requests fail each time",
    ...wholeNumber(0, SEED_MAX),
  }),
};

function isErrnoCode(text: string): text is ErrnoCode {
  return Object.hasOwn(errno, text);
}

function parseRate(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?|\.\d+)(%?)$/.exec(text);
  const rate = Number(match?.[1] ?? Number.NaN) / (match?.[2] === "%" ? 100 : 1);
  return rate <= 1 ? rate : undefined;
}

export const errorNamed: NamedLayer = {
  name: "error",
  summary: "Let requests fail",
  options: OPTIONS,
  sparesDevice: false,
  make: (given, { report }) => {
    const rate = given(OPTIONS.rate);
    const seed = given(OPTIONS.seed) ?? anySeed();
    const layer = errorLayer({
      rate,
      seed,
      errno: given(OPTIONS.errno),
      command: given(OPTIONS.command),
      trigger: given(OPTIONS.trigger),
    });
    // Only the seed can repeat what was random.
    if (rate === undefined || rate === 0 || rate === 1) return layer;
    let reported = given(OPTIONS.seed) !== undefined;
    return (device) => {
      if (!reported) report(`layer error: seed=${seed}`);
      reported = true;
      return layer(device);
    };
  },
};
