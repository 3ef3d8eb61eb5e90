/** A device with data in memory, its own or a layer's, that is handed over to another process. */
import type { Claim } from "../../control/claim.ts";
import type { Heirloom } from "../../control/handover.ts";
import { UserError } from "../../errors.ts";
import { MemoryFiles } from "../../layers/memory-files.ts";
import type { LayerStack } from "../options/layers.ts";
import type { ServingOptions } from "../options/serving.ts";

/** The files for the layers of a device that is handed over, from this process or to it. */
export function filesFor(stack: LayerStack, claim: Claim | undefined): MemoryFiles {
  const files = new MemoryFiles(claim && ((name) => claim.inherited?.take(name)));
  stack.handOver(files, claim !== undefined);
  return files;
}

/** Adds the layers' memory, which is all of the data if nobody changes the device below. */
export function withFiles(
  heirloom: Heirloom | undefined,
  files: MemoryFiles | undefined,
): Heirloom | undefined {
  const fds = files?.fds ?? {};
  if (Object.keys(fds).length === 0) return heirloom;
  return {
    kind: heirloom?.kind ?? "layers",
    isData: true,
    fds: { ...heirloom?.fds, ...fds },
    get facts() {
      return heirloom?.facts ?? {};
    },
  };
}

/** Call for a device with --handover, or with inherited data. @throws UserError */
export function checkHeirloom(heirloom: Heirloom | undefined, { stack }: ServingOptions): void {
  if (heirloom?.isData !== true)
    throw new UserError(
      "--handover is for data in memory, a RAM disk or the layer cow without a file: leave it out, or give --recover",
    );
  if (stack.hasFile)
    throw new UserError(
      "an overlay file is handed over when its server has ended, and data in memory before that: leave out cow:file, or leave out --handover",
    );
}
