/** How the commands for disks in buckets access a store. */
import { type Address, parseAddress, readCredentials } from "../../../devices/bucket/address.ts";
import { type Credentials, S3Store } from "../../../devices/bucket/s3.ts";
import { log } from "../log.ts";
import { anyText, option, positional } from "../options/argument.ts";
import { parsePositiveSize } from "../options/values.ts";

export const URI = positional("s3://BUCKET/PREFIX");

export const ACCESS = {
  endpoint: option({
    valueHint: "URL",
    description: "Address of the store (default: AWS_ENDPOINT, or that of AWS)",
    parse: anyText,
  }),
  region: option({
    valueHint: "NAME",
    description: "Region of the bucket (default: AWS_REGION)",
    parse: anyText,
  }),
  credentials: option({
    valueHint: "FILE",
    description:
      "Keys, as in the section [default] of ~/.aws/credentials; read again when the store refuses them",
    parse: (text) => {
      readCredentials(text);
      return () => readCredentials(text);
    },
  }),
};

export const BANDWIDTH = option({
  valueHint: "BYTES",
  description: "Limit of what cleaning reads, and writes, per second (default: none)",
  parse: parsePositiveSize,
});

interface Access {
  readonly endpoint: string | undefined;
  readonly region: string | undefined;
  readonly credentials: (() => Credentials) | undefined;
}

/** @throws UserError for an invalid address. */
export function storeAt(uri: string, access: Access): S3Store {
  const place: Address = parseAddress(uri);
  return new S3Store({ ...place, ...access, log: tell });
}

export function tell(line: string): void {
  log.warn(line);
}
