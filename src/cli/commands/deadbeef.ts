import { Deadbeef } from "../../../devices/deadbeef.ts";
import { command } from "../command.ts";
import { serveCommand } from "../serving/serve-command.ts";
import { SERVING_ARGS, servingOptions, TARGET_DESCRIPTION } from "../options/serving.ts";
import { parseBlocks } from "../options/values.ts";

const DEFAULT_SIZE = "1G";

export default command(
  {
    name: "deadbeef",
    kind: "device",
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
    first: {
      type: "positional",
      required: true,
      description: `Bytes, or with K, M, G, T (default ${DEFAULT_SIZE})`,
    },
    second: {
      type: "positional",
      required: false,
      description: TARGET_DESCRIPTION,
    },
    ...SERVING_ARGS,
  },
  (args) => {
    const [size, target] = args.second === undefined ? [DEFAULT_SIZE, args.first] : [args.first, args.second];
    const options = servingOptions(args);
    const bytes = parseBlocks(size, "SIZE", options.sizeUnit);
    return serveCommand(target, options, () => ({ device: new Deadbeef(bytes) }));
  },
);
