import { askServer } from "../../control/client.ts";
import { command } from "../command.ts";
import { printResult } from "../log.ts";
import { flag, optional, positional } from "../options/argument.ts";
import { parsePositiveSize } from "../options/values.ts";

/** The kernel waits until all that is under way is answered: so long at most, in milliseconds. */
const LIMIT_MS = 60_000;

export default command(
  {
    name: "resize",
    summary: "Give a device in use another size",
    synopsis: "TARGET [SIZE]",
    details: [
      "A loop device becomes as large as its file is by now, or SIZE, which one with --size has to be told; a regular file that is shorter is made longer. A device of your own is asked to, if it has a method resize. Who uses the node sees the new size at once; the file system on it is resized by its own command afterwards, or before if the device is to shrink.",
      "A device that is mounted or held does not shrink, but with --force. A file is never cut off: what lies beyond SIZE stays in it.",
      "A ublk node takes Linux 6.16 or newer. Clients of a socket know the new size once they connect anew.",
    ],
    examples: [
      {
        line: "truncate -s 20G disk.img && tsbuse resize /dev/nbd0",
        does: "the file has grown: so does the node",
      },
      {
        line: "tsbuse resize /dev/nbd0 20G && resize2fs /dev/nbd0",
        does: "both in one, and the file system",
      },
    ],
  },
  {
    target: positional("The node, or the socket"),
    sizeText: optional("Bytes, or with K, M, G, T (default: what the device has)"),
    force: flag("Shrink it though it is in use: what lies beyond SIZE is lost to its users"),
  },
  async ({ target, sizeText, force }) => {
    const size = sizeText === undefined ? undefined : parsePositiveSize(sizeText, "SIZE");
    const answer = await askServer(target, "resize", { size, force }, LIMIT_MS);
    return printResult(String(answer["size"]));
  },
);
