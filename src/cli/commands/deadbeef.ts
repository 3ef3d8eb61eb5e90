import { Deadbeef } from "../../../devices/deadbeef.ts";
import { deviceCommand } from "../command.ts";
import { optional, positional } from "../options/argument.ts";
import { TARGET } from "../options/serving.ts";
import { parseBlocks } from "../options/values.ts";
import { serveCommand } from "../serving/serve-command.ts";

const DEFAULT_SIZE = "1G";

export default deviceCommand(
  {
    name: "deadbeef",
    summary: "A read-only disk of DE AD BE EF, over and over",
    synopsis: "[SIZE] TARGET",
    details: [
      `The smallest device there is, to see that everything works and to start your own from. SIZE is ${DEFAULT_SIZE} unless given.`,
    ],
    examples: [
      { line: "tsbuse deadbeef /dev/nbd0", does: "1 GiB of DE AD BE EF on /dev/nbd0" },
      {
        line: "tsbuse deadbeef 64K auto --run 'xxd -l 32 $TSBUSE_DEVICE'",
        does: "a small one, and a look at its first bytes",
      },
    ],
  },
  {
    first: positional(`Bytes, or with K, M, G, T (default ${DEFAULT_SIZE})`),
    second: optional(TARGET.description),
  },
  ({ first, second }, options) => {
    const [size, target] = second === undefined ? [DEFAULT_SIZE, first] : [first, second];
    const bytes = parseBlocks(size, "SIZE", options.blockSize);
    return serveCommand(target, options, () => ({ device: new Deadbeef(bytes) }));
  },
);
