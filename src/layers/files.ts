/** What layers with a file share: the option for its name, and the message if it cannot be opened. */
import { resolve } from "node:path";
import { UserError } from "../errors.ts";
import { errorText } from "../libc/errno.ts";
import { errno } from "../uapi/errno.ts";
import { type LayerOption, option } from "./options.ts";

/** An option whose value is a path. It becomes absolute, since a daemon changes its working directory. */
export function fileOption(
  description: string,
  more: Pick<LayerOption<string>, "required"> = {},
): LayerOption<string> {
  return option({
    ...more,
    value: "FILE",
    description,
    expects: "the name of a file",
    parse: (text) => (text === "" ? undefined : resolve(text)),
  });
}

/** The error for a negative result of open(2). */
export function openFailure(path: string, result: number): UserError {
  const remedies = new Map<number, string>([
    [errno.ENOENT, "its directory does not exist, make it first"],
    [errno.ENOTDIR, "its directory does not exist, make it first"],
    [errno.EISDIR, "it is a directory, give a file"],
    [errno.EACCES, "permission denied, choose another file or run as root"],
    [errno.EPERM, "permission denied, choose another file or run as root"],
    [errno.ENXIO, "it is a pipe that nobody reads, start its reader first"],
    [errno.EROFS, "its file system is read-only, choose another place"],
  ]);
  const reason = remedies.get(-result) ?? `${errorText(-result)}, choose another file`;
  return new UserError(`${path} cannot be opened: ${reason}`);
}
