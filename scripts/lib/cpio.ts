/**
 * Archives that the kernel unpacks as its initramfs: the newc format of
 * Documentation/driver-api/early-userspace/buffer-format.rst.
 */

/** A file in an archive. `path` has no leading slash; the directories above it must come before it. */
export type Entry =
  | { readonly kind: "directory"; readonly path: string }
  | { readonly kind: "file"; readonly path: string; readonly mode: number; readonly data: Uint8Array }
  | { readonly kind: "symlink"; readonly path: string; readonly target: string };

const MAGIC = "070701";
const TRAILER = "TRAILER!!!";

/** The type bits of a mode, as stat(2) has them. */
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;

/** Headers and data begin at multiples of this. */
const ALIGNMENT = 4;
/** The length of an archive is a multiple of this, as cpio(1) writes it. */
const BLOCK = 512;

/**
 * The archive of `entries`, in their order. It depends on nothing else: inodes are numbered, the owner is root, and
 * every time is `mtime`, in seconds.
 */
export function cpioArchive(entries: readonly Entry[], mtime: number): Uint8Array<ArrayBuffer> {
  const parts = entries.flatMap((entry, index) =>
    member(nameOf(entry), modeOf(entry), index + 1, mtime, dataOf(entry)),
  );
  parts.push(...member(TRAILER, 0, 0, 0, new Uint8Array(0)));
  const length = parts.reduce((total, part) => total + part.length, 0);
  parts.push(new Uint8Array(padding(length, BLOCK)));
  return new Uint8Array(Buffer.concat(parts));
}

/** Header, name and data of one file, each padded. */
function member(name: string, mode: number, inode: number, mtime: number, data: Uint8Array): Uint8Array[] {
  const links = (mode & S_IFDIR) === S_IFDIR ? 2 : 1;
  const nameLength = Buffer.byteLength(name) + 1;
  // Inode, mode, uid, gid, links, mtime, size, the device's and the special file's numbers, name's length, checksum.
  const fields = [inode, mode, 0, 0, links, mtime, data.length, 0, 0, 0, 0, nameLength, 0];
  const header = Buffer.from(`${MAGIC}${fields.map(hexadecimal).join("")}${name}\0`);
  return [header, zeroes(header.length), data, zeroes(data.length)];
}

/**
 * A directory's name ends with a slash. Without it the kernel would lstat(2) the name. If the image to which the
 * archive is appended has a symbolic link there, perhaps /lib, the kernel would replace it by an empty directory.
 */
function nameOf(entry: Entry): string {
  return entry.kind === "directory" ? `${entry.path}/` : entry.path;
}

function modeOf(entry: Entry): number {
  switch (entry.kind) {
    case "directory":
      return S_IFDIR | 0o755;
    case "file":
      return S_IFREG | entry.mode;
    case "symlink":
      return S_IFLNK | 0o777;
  }
}

function dataOf(entry: Entry): Uint8Array {
  switch (entry.kind) {
    case "directory":
      return new Uint8Array(0);
    case "file":
      return entry.data;
    case "symlink":
      return Buffer.from(entry.target);
  }
}

function hexadecimal(field: number): string {
  return field.toString(16).toUpperCase().padStart(8, "0");
}

function zeroes(length: number): Uint8Array {
  return new Uint8Array(padding(length, ALIGNMENT));
}

function padding(length: number, unit: number): number {
  return (unit - (length % unit)) % unit;
}
