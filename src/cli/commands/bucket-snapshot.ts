import { makeSnapshot, removeSnapshot } from "../../../devices/bucket/snapshots.ts";
import { ACCESS, storeAt, tell, URI } from "../bucket/access.ts";
import { command } from "../command.ts";
import { log } from "../log.ts";
import { flag, positional } from "../options/argument.ts";
import { formatSize } from "../text.ts";

export default command(
  {
    name: "bucket-snapshot",
    summary: "Make or remove a snapshot of a disk in a bucket",
    synopsis: "URI NAME",
    details: [
      'URI is that of "tsbuse bucket". The snapshot is of what is in the bucket at that moment: everything that was flushed, and maybe more, always a prefix of what was written. The disk may be attached, here or on another machine, and its owner goes on. Flush first what the snapshot shall contain: sync, or fsfreeze for a clean file system.',
      'A snapshot takes no space of its own but for its map, and keeps what it needs of the disk until it is removed. "tsbuse bucket URI TARGET --at NAME" shows it, read-only. A name is a letter, then letters, digits and _.-',
      '--remove removes it. The owner\'s next checkpoint of the disk, or "tsbuse bucket-clean", frees the space. Whoever has the snapshot attached keeps it until then.',
    ],
    examples: [
      {
        line: "sync && tsbuse bucket-snapshot s3://backup/db before-upgrade",
        does: "of a disk in use",
      },
      { line: "tsbuse bucket-snapshot s3://backup/db before-upgrade --remove", does: "remove it" },
    ],
  },
  {
    uri: URI,
    name: positional("Name of the snapshot"),
    remove: flag("Remove the snapshot"),
    ...ACCESS,
  },
  async ({ uri, name, remove, ...access }) => {
    const store = storeAt(uri, access);
    if (remove) {
      await removeSnapshot(store, name, (prefix) => store.beside(prefix));
      return 0;
    }
    const { number, live } = await makeSnapshot(store, name, tell);
    log.info(`snapshot ${name} of ${store.name}: number ${number} of its log, ${formatSize(live)} of data`);
    return 0;
  },
);
