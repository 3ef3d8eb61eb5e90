import type { Command, CommandText } from "../command.ts";
import { forwardTo } from "../forward.ts";
import { positional } from "../options/argument.ts";

const TEXT: CommandText = {
  name: "recover",
  kind: "tool",
  summary: "Serve a node again whose server was killed",
  synopsis: "TARGET DEVICE",
  details: [
    "TARGET is a node that was attached with --recover, ublk or NBD. Its users have been waiting since its server was killed, and go on as if nothing had happened: requests that were not answered are made again. DEVICE and what follows are the words of the command that attached it, without its target.",
    'Only the same device takes over: the same file or other origin, behind the same layers, of the same size and block size, as read-only or not as it was. "tsbuse list" shows what is waited for. What a RAM disk or a cow layer in memory held is lost with its server; a device of your own says by its property "identity" where its data lies.',
    "The command that attached it, with --recover as before, does the same where the node waits, and makes it where it is not there: a service needs no other. If all requests that there can be were with the server of a ublk device when it was killed, the driver takes half a minute to notice. When taking over fails, the device goes on waiting.",
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
