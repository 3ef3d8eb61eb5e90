import type { Command, CommandText } from "../command.ts";
import { forwardTo } from "../forward.ts";
import { positional } from "../options/argument.ts";

const TEXT: CommandText = {
  name: "recover",
  kind: "tool",
  summary: "Serve a node again whose server was killed",
  synopsis: "TARGET DEVICE",
  details: [
    "TARGET is a node that was attached with --recover, ublk or NBD. Its users have been waiting since its server was killed. They continue as if nothing had happened: requests that were not answered are repeated. DEVICE and what follows are the words of the command that attached it, without its target.",
    'Only the same device takes over: the same file or other origin, behind the same layers, of the same size and block size, as read-only or not as it was. "tsbuse list" shows which device a node waits for. The data of a RAM disk or of a cow layer in memory is lost with its server. A device of your own says in its property "identity" where its data lies.',
    "The command that attached it, with --recover as before, does the same where the node waits, and makes the node where there is none: a service needs no other command. If a ublk server is killed while it holds every request that the device can have in flight, the driver takes half a minute to notice. If taking over fails, the device keeps waiting.",
  ],
  examples: [
    {
      line: "tsbuse recover /dev/ublkb0 loop disk.img",
      does: "after tsbuse loop disk.img /dev/ublkb0 --recover was killed",
    },
    {
      line: "tsbuse recover /dev/ublkb0 run ./mydisk.ts -- size=1G",
      does: "a device of your own, with its options",
    },
  ],
};

const recover: Command = {
  text: TEXT,
  args: {
    target: positional("/dev/ublkbN or /dev/nbdN"),
    device: positional("The command that attached it, with all its words but for the target"),
  },
  forwards: true,
  execute: (words) => forwardTo("recover", words, "--resume"),
};

export default recover;
