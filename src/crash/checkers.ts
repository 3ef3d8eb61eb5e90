/** The built-in checkers, by their names on the command line. */
import { Database } from "bun:sqlite";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { messageOf } from "../errors.ts";
import type { Checker } from "./checker.ts";

/** What a name stands for. */
interface ReadyMade {
  /** What must follow the name after a colon, if anything. */
  readonly argument?: string;
  readonly make: (argument: string) => Checker;
}

const SBIN = 'export PATH="$PATH:/usr/sbin:/sbin"\n';
/** e2fsck exits with 1 if it has replayed the journal, or repaired what it may repair without asking. */
const RECOVER_EXT4 = `${SBIN}e2fsck -p "$TSBUSE_IMAGE"; [ $? -le 1 ] || exit\n`;

export const CHECKERS: Readonly<Record<string, ReadyMade>> = {
  ext4: { make: () => ({ command: `${RECOVER_EXT4}exec e2fsck -fn "$TSBUSE_IMAGE"` }) },
  xfs: {
    // The log must be replayed first, which only the kernel can do.
    make: () =>
      apart(
        `mount -o loop,nouuid "$TSBUSE_IMAGE" /mnt && umount /mnt && exec xfs_repair -n -f "$TSBUSE_IMAGE"`,
      ),
  },
  btrfs: { make: () => ({ command: `${SBIN}exec btrfs check --readonly "$TSBUSE_IMAGE"` }) },
  sqlite: { argument: "PATH", make: sqlite },
  postgres: { argument: "PATH", make: postgres },
};

/** A database in an ext4 file system, read without mounting that. @param path in the file system. */
function sqlite(path: string): Checker {
  const files = ["", "-wal", "-journal"].map(
    (end) => `printf 'dump "%s" "%s"\\n' ${quote(path + end)} "$TSBUSE_SCRATCH/database${end}"\n`,
  );
  return {
    command: `${RECOVER_EXT4}{ ${files.join("")}} | debugfs -f - "$TSBUSE_IMAGE" >/dev/null 2>&1`,
    inspect: (directory) => inspectDatabase(join(directory, "database"), path),
  };
}

/** What is wrong with a database; undefined if nothing. */
function inspectDatabase(file: string, name: string): string | undefined {
  if (!existsSync(file)) return `the database ${name} is not there`;
  try {
    using database = new Database(file);
    const rows = database.query<{ integrity_check: string }, []>("PRAGMA integrity_check").all();
    const wrong = rows.map((row) => row.integrity_check).find((text) => text !== "ok");
    return wrong === undefined ? undefined : `integrity_check of ${name}: ${wrong.replaceAll("\n", " ")}`;
  } catch (error) {
    return `${name} cannot be read: ${messageOf(error)}`;
  }
}

/**
 * A data directory in any file system. The server recovers, and every table and index is read. The file system is
 * mounted on /mnt, because the server's user could not reach a directory of ours.
 */
function postgres(path: string): Checker {
  const options = "-c listen_addresses= -c unix_socket_directories=/mnt/$DATA";
  const as = 'su "$(stat -c %U "/mnt/$DATA")" -c';
  return apart(
    [
      `DATA=${quote(path)}\nmount -o loop "$TSBUSE_IMAGE" /mnt || exit\ntrap 'umount /mnt' EXIT`,
      `${as} "pg_ctl -s -w -D '/mnt/$DATA' -o '${options}' start" || exit`,
      `${as} "pg_amcheck -h '/mnt/$DATA' --all --heapallindexed --install-missing"; status=$?`,
      `${as} "pg_ctl -s -w -D '/mnt/$DATA' -m immediate stop"`,
      "exit $status",
    ].join("\n"),
  );
}

/** In its own mount and PID namespaces: its end also ends the server that it started, and its mounts. */
function apart(script: string): Checker {
  return {
    command: `${SBIN}exec unshare --mount --pid --fork --kill-child /bin/sh -c ${quote(script)}`,
  };
}

function quote(text: string): string {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}
