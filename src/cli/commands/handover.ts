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
    'TARGET is a ublk device that was attached with --recover, or a RAM disk with --handover: its data goes along. Only the same device takes over, as with "tsbuse recover".',
    'What can fail is done first: until the other process is told to let go it serves on, whatever happens to this one. From then on requests wait. A file or a RAM disk without layers the other process takes back if this one fails; a device of your own, or one behind layers, it has closed, and the device waits for "tsbuse recover". An overlay in memory cannot be handed over, nor can a file of cow, which two processes cannot have open.',
  ],
  examples: [
    {
      line: "tsbuse handover /dev/ublkb0 loop disk.img --recover",
      does: "a newer tsbuse serves what an older one does",
    },
    { line: "tsbuse handover /dev/ublkb1 ramdisk 512M --handover", does: "the RAM disk keeps its data" },
  ],
};

const handover: Command = {
  text: TEXT,
  args: {
    target: positional("/dev/ublkbN"),
    device: positional("A command that attaches it, with all its words but for the target"),
  },
  forwards: true,
  execute: (words) => forwardTo("handover", words, "--take-over"),
};

export default handover;
