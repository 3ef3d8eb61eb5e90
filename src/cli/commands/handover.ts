import type { Command, CommandText } from "../command.ts";
import { forwardTo } from "../forward.ts";
import { positional } from "../options/argument.ts";

const TEXT: CommandText = {
  name: "handover",
  kind: "tool",
  summary: "Take a device over from a process that serves it",
  synopsis: "TARGET DEVICE",
  details: [
    "Takes a device over from a process that runs, for a newer version of tsbuse or another command line: that process answers what it has begun, lets go and exits with 0, and this one goes on. The device's users notice a pause. DEVICE and what follows are the words of a command that attaches the device, without its target; options may differ.",
    'TARGET is a node that was attached with --recover, an NBD node (by netlink) of a file, or a RAM disk with --handover, whose data goes along. Only the same device takes over, as with "tsbuse recover". Whether the node waits for its next server when this process ends is as it was attached.',
    'What can fail is done first: until the other process is told to let go, it serves on, whatever happens to this one. From then on requests wait. The other process takes a file or a RAM disk back if this one fails. A device of your own, or a file behind layers, it has closed by then, and the node waits for "tsbuse recover". An overlay of cow in memory cannot be handed over.',
    "Of a systemd service this process becomes the main process, in the control group of the service: give --daemon.",
  ],
  examples: [
    {
      line: "tsbuse handover /dev/nbd0 loop disk.img",
      does: "a newer tsbuse serves what an older one does",
    },
    { line: "tsbuse handover /dev/ublkb1 ramdisk 512M --handover", does: "the RAM disk keeps its data" },
  ],
};

const handover: Command = {
  text: TEXT,
  args: {
    target: positional("/dev/ublkbN or /dev/nbdN"),
    device: positional("A command that attaches it, with all its words but for the target"),
  },
  forwards: true,
  execute: (words) => forwardTo("handover", words, "--take-over"),
};

export default handover;
