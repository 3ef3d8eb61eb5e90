/** A layer that makes a device slow. */
import { adopt } from "../values/promise.ts";
import { around, type Command } from "./around.ts";
import type { Layer } from "./layer.ts";
import { type LayerOption, type NamedLayer, option, wholeNumber } from "./options.ts";

/** Milliseconds before a request is passed on. `all` is for commands without a delay of their own. */
export type DelayOptions = { readonly [Each in Command | "all"]?: number | undefined };

/** An hour: more is a mistake. */
export const DELAY_MAX_MS = 60 * 60 * 1000;

/**
 * Passes each request on after a time. Requests wait independently of each other.
 */
export function delayLayer(options: DelayOptions): Layer {
  return (device) =>
    around("delay", device, async ({ command }, proceed) => {
      const milliseconds = options[command] ?? options.all ?? 0;
      if (milliseconds > 0) await Bun.sleep(milliseconds);
      await adopt(proceed());
    });
}

const OPTIONS = {
  read: delayOption("Before a read"),
  write: delayOption("Before a write"),
  flush: delayOption("Before a flush"),
  trim: delayOption("Before a trim"),
  zero: delayOption("Before zeroes are written"),
  all: delayOption("Before every other request"),
};

function delayOption(description: string): LayerOption<number> {
  return option({ value: "MS", description, ...wholeNumber(0, DELAY_MAX_MS) });
}

export const delayNamed: NamedLayer = {
  name: "delay",
  summary: "Let each request wait, in milliseconds",
  options: OPTIONS,
  sparesDevice: false,
  make: (given) =>
    delayLayer({
      read: given(OPTIONS.read),
      write: given(OPTIONS.write),
      flush: given(OPTIONS.flush),
      trim: given(OPTIONS.trim),
      zero: given(OPTIONS.zero),
      all: given(OPTIONS.all),
    }),
};
