import { parseAddress } from "../../../devices/bucket/address.ts";
import { cloneDisk } from "../../../devices/bucket/clone.ts";
import { UserError } from "../../errors.ts";
import { ACCESS, storeAt, tell, URI } from "../bucket/access.ts";
import { command } from "../command.ts";
import { log } from "../log.ts";
import { anyText, option, positional } from "../options/argument.ts";
import { UsageError } from "../usage-error.ts";

export default command(
  {
    name: "bucket-clone",
    summary: "Make a disk from a snapshot of one in a bucket",
    synopsis: "URI NEW",
    details: [
      "URI is that of the disk that has the snapshot, NEW the s3:// address of the new one, in the same bucket. The new disk holds what the snapshot does and goes its own way from there. No data is copied: both share the objects of the snapshot, and each writes its own.",
      'What is shared stays below the prefix of URI, kept there by another snapshot, whose name begins with clone-, and which "tsbuse bucket-list" shows. Credentials for the clone therefore need to read there as well, and the objects of URI must stay as long as it has clones.',
      'To delete a clone, detach it, remove all objects below its prefix with a tool for the store, and then that snapshot: "tsbuse bucket-snapshot URI NAME --remove" refuses while the clone is there. A clone can be cloned; delete its clones first.',
    ],
    examples: [
      {
        line: "tsbuse bucket-clone s3://backup/golden s3://backup/vm7 --at v1",
        does: "a disk for one more machine",
      },
    ],
  },
  {
    uri: URI,
    clone: positional("s3://BUCKET/PREFIX of the new disk"),
    at: option({ valueHint: "NAME", description: "The snapshot that NEW begins as", parse: anyText }),
    ...ACCESS,
  },
  async ({ uri, at, clone, ...access }) => {
    if (at === undefined)
      throw new UsageError('which snapshot? give --at NAME: "tsbuse bucket-list" shows all');
    const [from, to] = [parseAddress(uri), parseAddress(clone)];
    if (from.bucket !== to.bucket)
      throw new UserError(`a clone shares objects: give a prefix in the bucket ${from.bucket}`);
    if (from.prefix.startsWith(to.prefix) || to.prefix.startsWith(from.prefix))
      throw new UserError("a clone has a prefix of its own: give one that is not below the other");
    const [origin, target] = [storeAt(uri, access), storeAt(clone, access)];
    const name = await cloneDisk(
      { store: origin, prefix: from.prefix },
      at,
      { store: target, prefix: to.prefix },
      tell,
    );
    log.info(`${target.name} is a clone of ${origin.name}, where snapshot ${name} keeps what it needs`);
    return 0;
  },
);
