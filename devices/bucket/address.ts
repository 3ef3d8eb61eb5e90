/** The bucket, the prefix and the credentials. */
import { readFileSync } from "node:fs";
import { UserError } from "tsbuse";
import type { Credentials } from "./s3.ts";

export interface Address {
  readonly bucket: string;
  /** Ends with a slash. */
  readonly prefix: string;
}

/** @throws UserError for anything but `s3://BUCKET/PREFIX`. */
export function parseAddress(text: string): Address {
  const [, bucket, path] = /^s3:\/\/([^/@:?#\s]+)\/([^?#]+)$/.exec(text) ?? [];
  const prefix = path?.replace(/\/+$/, "");
  const isPlain = prefix?.split("/").every((part) => /^(?!\.{1,2}$)[\w!.*'()-]+$/.test(part)) === true;
  // "." and ".." would lead a URL elsewhere, even to another bucket.
  if (bucket === undefined || prefix === undefined || !isPlain || /^\.{1,2}$/.test(bucket))
    throw new UserError(
      // The message omits the address: it may contain a password.
      "invalid address of the disk: give s3://BUCKET/PREFIX, with letters, digits and -_.!*'() between slashes",
    );
  return { bucket, prefix: `${prefix}/` };
}

/**
 * Reads the section `default` of a file in the format of AWS, `~/.aws/credentials`.
 * @throws UserError
 */
export function readCredentials(file: string): Credentials {
  const values = defaultsIn(read(file));
  const accessKeyId = values.get("aws_access_key_id");
  const secretAccessKey = values.get("aws_secret_access_key");
  const sessionToken = values.get("aws_session_token");
  if (accessKeyId === undefined || secretAccessKey === undefined)
    throw new UserError(`${file} lacks aws_access_key_id or aws_secret_access_key: add them`);
  return { accessKeyId, secretAccessKey, ...(sessionToken !== undefined && { sessionToken }) };
}

function read(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : String(error);
    throw new UserError(`${file} cannot be read (${code}): check the path and its permissions`, {
      cause: error,
    });
  }
}

function defaultsIn(text: string): Map<string, string> {
  const values = new Map<string, string>();
  let isDefault = true;
  for (const line of text.split("\n")) {
    const section = /^\s*\[\s*([^\]]*?)\s*\]/.exec(line)?.[1];
    if (section !== undefined) isDefault = section === "default";
    const [, name, value] = /^\s*(\w+)\s*=\s*(\S+)\s*$/.exec(line) ?? [];
    if (isDefault && name !== undefined && value !== undefined) values.set(name.toLowerCase(), value);
  }
  return values;
}
