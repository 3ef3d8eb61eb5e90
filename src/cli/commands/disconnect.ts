import { disconnectNbd } from "../../nbd/node/disconnect.ts";
import { nodeName } from "../../nbd/node/driver.ts";
import { disconnectUblk } from "../../ublk/control/disconnect.ts";
import { isUblkTarget, ublkTarget } from "../../ublk/nodes.ts";
import { command } from "../command.ts";
import { flag, positional } from "../options/argument.ts";
import { UsageError } from "../usage-error.ts";

export default command(
  {
    name: "disconnect",
    summary: "Detach a device, whichever program serves it",
    synopsis: "TARGET",
    details: [
      [
        "Data that the system still holds for the device is written to it first.",
        "The program that serves it ends, or continues without the device.",
        "A device that is mounted, in whichever namespace, is held by another one or is a part of a file system",
        "is refused, as is any other that the kernel lets nobody else open exclusively.",
      ].join(" "),
      [
        "--force neither looks for users nor writes anything back, so that a device whose server hangs can",
        "be removed: its users get I/O errors. Its node is free when the last user has closed it.",
        "To remove a ublk device whose server hangs but is alive, end that server.",
      ].join(" "),
    ],
    examples: [
      { line: "tsbuse disconnect /dev/nbd0", does: "detach what is served on /dev/nbd0" },
      {
        line: "tsbuse disconnect /dev/nbd0 --force",
        does: "remove it from a server that no longer answers",
      },
    ],
  },
  {
    target: positional("/dev/nbdN or /dev/ublkbN"),
    force: flag("Even if it is in use or hangs: what was not written back is lost"),
  },
  async (args) => {
    const { target } = args;
    if (["auto", "nbd", "ublk"].includes(target))
      throw new UsageError(`"${target}" is for attaching: name the node, see "tsbuse list"`);
    const id = isUblkTarget(target) ? ublkTarget(target) : undefined;
    await (id === undefined ? disconnectNbd(nodeName(target), args.force) : disconnectUblk(id, args.force));
    return 0;
  },
);
