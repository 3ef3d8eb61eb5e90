import { askServer } from "../../control/client.ts";
import { command } from "../command.ts";
import { printResult } from "../log.ts";
import { flag, optional, positional } from "../options/argument.ts";
import { parsePositiveSize } from "../options/values.ts";

/** The longest wait, in milliseconds: the kernel waits until everything in flight is answered. */
const LIMIT_MS = 60_000;

export default command(
  {
    name: "resize",
    summary: "Give a device in use another size",
    synopsis: "TARGET [SIZE]",
    details: [
      "A loop device becomes as large as its file has grown, or SIZE; a loop device with --size needs SIZE. A regular file that is shorter is extended. A device of your own is asked, if it has a method resize. Users of the node see the new size at once. Resize the file system on it with its own command afterwards, or before if the device is to shrink.",
      "A device that is mounted or held shrinks only with --force. A file is never truncated: data beyond SIZE stays in it.",
      "A ublk node needs Linux 6.16 or newer. Clients of a socket see the new size when they reconnect.",
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
