import { cleanBucket } from "../../../devices/bucket/clean.ts";
import type { Beside } from "../../../devices/bucket/sources.ts";
import { ACCESS, BANDWIDTH, storeAt, tell, URI } from "../bucket/access.ts";
import { command } from "../command.ts";
import { log } from "../log.ts";
import { flag } from "../options/argument.ts";
import { formatSize } from "../text.ts";

export default command(
  {
    name: "bucket-clean",
    summary: "Free space of a detached disk in a bucket",
    synopsis: "URI",
    details: [
      'URI is that of "tsbuse bucket". Objects of which little is in use are rewritten, and what nothing needs is removed: no snapshot, no reader, no state that --keep keeps. A process that has the disk attached does this by itself while the disk is written to.',
      "To clean a disk is to attach it, without a device. The command therefore refuses a disk whose last owner has not detached it. If that was killed, --take-over cleans it nevertheless; if it is alive, it loses the disk.",
    ],
    examples: [
      { line: "tsbuse bucket-clean s3://backup/db", does: "after a snapshot was removed, for example" },
      {
        line: "tsbuse bucket-clean s3://backup/db --bandwidth 20M",
        does: "leave something of the network to others",
      },
    ],
  },
  {
    uri: URI,
    bandwidth: BANDWIDTH,
    takeOver: flag("Take the disk from its last owner, which has not detached it"),
    ...ACCESS,
  },
  async ({ uri, bandwidth, takeOver, ...access }) => {
    const store = storeAt(uri, access);
    const beside: Beside = (prefix) => store.beside(prefix);
    const { before, after } = await cleanBucket(store, { takeOver, bandwidth, beside, log: tell });
    const sizes = [before, after].map(({ stored }) => formatSize(stored.bytes));
    const counts = [before, after].map(({ stored }) => stored.objects);
    log.info(`${store.name}: from ${sizes.join(" to ")}, from ${counts.join(" to ")} objects`);
    return 0;
  },
);
