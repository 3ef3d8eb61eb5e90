import type { Command, CommandText } from "../command.ts";
import { forwardTo } from "../forward.ts";
import { positional } from "../options/argument.ts";

const TEXT: CommandText = {
  name: "handover",
  kind: "tool",
  summary: "Take a device over from a process that serves it",
  synopsis: "TARGET DEVICE",
  details: [
    "Takes a device over from a running process, for a newer version of tsbuse or another command line: that process answers what it has begun, lets go and exits with 0, and this one continues. The device's users notice a pause. DEVICE and what follows are the words of a command that attaches the device, without its target; options may differ.",
    'TARGET is a node that was attached with --recover, an NBD node (by netlink) of a file, or a RAM disk or the layer cow in memory, attached with --handover, which keeps its data. Only the same device takes over, as with "tsbuse recover". Whether the node waits for another server when this process ends was decided when it was attached.',
    'Every step that can fail comes first: until the other process is told to let go, it keeps serving, whatever happens to this one. From then on requests wait. If this process fails, the other one takes a file, a RAM disk or changes in memory back. It has closed a device of your own, or a file behind layers, by then, and the node waits for "tsbuse recover".',
    "If a systemd service has the device, this process becomes its main process, in its control group: give --daemon.",
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
