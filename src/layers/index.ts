/** The layers that have a name, in the order in which the help lists them. */
import { cowNamed } from "./cow.ts";
import { delayNamed } from "./delay.ts";
import { errorNamed } from "./error.ts";
import { logNamed } from "./log.ts";
import type { NamedLayer } from "./options.ts";
import { readonlyNamed } from "./readonly.ts";
import { recordNamed } from "./record.ts";
import { statsNamed } from "./stats.ts";

export const LAYERS: readonly NamedLayer[] = [
  cowNamed,
  delayNamed,
  errorNamed,
  logNamed,
  readonlyNamed,
  recordNamed,
  statsNamed,
];
