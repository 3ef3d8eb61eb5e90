import { connectNbd } from "../../nbd/client/device.ts";
import { isServerTarget } from "../../nbd/server/target.ts";
import { deviceCommand } from "../command.ts";
import { log } from "../log.ts";
import { option, positional } from "../options/argument.ts";
import { TARGET } from "../options/serving.ts";
import { count } from "../options/values.ts";
import { isDaemonChild, startDaemon } from "../serving/daemon.ts";
import { becomeIoFlusher } from "../serving/io-flusher.ts";
import { serveCommand } from "../serving/serve-command.ts";

const CONNECTIONS_MAX = 16;
const NOT_FOR_SWAP = 'its server may wait for memory, and the network does: give "loop DISK --direct"';

export default deviceCommand(
  {
    name: "nbd",
    summary: "What another NBD server exports",
    synopsis: "URI TARGET",
    details: [
      "URI is nbd://HOST:PORT/NAME or nbd+unix:///NAME?socket=PATH: the export of nbdkit, qemu-nbd, nbd-server or tsbuse, here or elsewhere. There is no TLS and no password: use a tunnel where others can listen.",
      "A server that goes away is waited for, as long as it takes; --request-timeout ends the patience of requests. When it is back, with the same size and abilities, they go on: first the writes that were answered and not flushed, then what was not answered. Up to 64 MiB of writes are kept for that, and the server is asked to flush before there are more. What it has said to be flushed it must still have, as a file has and memory has not. A server that offers no flush is taken to lose nothing.",
    ],
    examples: [
      {
        line: "tsbuse nbd nbd://store.example/disk auto",
        does: "another machine's disk on the first free node",
      },
      {
        line: "tsbuse nbd 'nbd+unix:///?socket=/run/disk.sock' auto --layer cow:file=mine.cow",
        does: "a golden image for many, and a file for what this one changes",
      },
    ],
  },
  {
    uri: positional("nbd://HOST:PORT/NAME or nbd+unix:///NAME?socket=PATH"),
    target: TARGET,
    connections: option({
      valueHint: "N",
      description: "Connections at once, where the server allows several (default 4)",
      parse: count(1, CONNECTIONS_MAX),
    }),
  },
  async ({ uri, target, connections }, options) => {
    // The URI has been taken for the target of a server, which needs no such mark.
    if (!isServerTarget(target)) becomeIoFlusher(options.daemon);
    if (options.daemon && !isDaemonChild()) return startDaemon(options.initrd);
    const readOnly = options.readOnly || options.stack.sparesDevice;
    // Before a node is touched, and while a signal still ends the program: a server may take its time.
    const device = await connectNbd(uri, { connections, readOnly, log: (line) => log.warn(line) });
    return serveCommand(target, options, () => ({ device, needsEventLoop: true, whyNoSwap: NOT_FOR_SWAP }));
  },
);
