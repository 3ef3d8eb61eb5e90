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
      "If the server goes away, tsbuse waits for it, however long it takes; --request-timeout limits how long requests wait. When it is back, with the same size and capabilities, tsbuse repeats the writes that were answered but not flushed, then the requests that were not answered. It keeps up to 64 MiB of writes for that, and asks the server to flush before there are more. Data that the server has confirmed as flushed must survive its restart: a file does, memory does not. A server that offers no flush is assumed to lose nothing.",
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
    // deviceCommand has taken the URI for the target of a server, which needs no such mark.
    if (!isServerTarget(target)) becomeIoFlusher(options.daemon);
    if (options.daemon && !isDaemonChild()) return startDaemon(options.initrd);
    const readOnly = options.readOnly || options.stack.sparesDevice;
    // Before a node is touched, and while a signal still ends the program: a server may be slow.
    const device = await connectNbd(uri, { connections, readOnly, log: (line) => log.warn(line) });
    return serveCommand(target, options, () => ({ device, needsEventLoop: true, whyNoSwap: NOT_FOR_SWAP }));
  },
);
