/** Refusals of object stores, in words for an administrator. */
import { UserError } from "tsbuse";

/** `busy`: may succeed later by itself. `refused`: somebody must change something. */
export type StoreErrorKind = "busy" | "refused";

/** A failure of the store: the message is one line with cause and remedy, without credentials. */
export class StoreError extends UserError {
  override readonly name = "StoreError";

  constructor(
    readonly kind: StoreErrorKind,
    message: string,
  ) {
    super(message);
  }
}

/** The remedy for each code of the S3 protocol that requires one. */
const REMEDIES: Readonly<Record<string, string>> = {
  NoSuchBucket: "there is no such bucket: create it, or check its name and the endpoint",
  AccessDenied: "access denied: the credentials need permission to get, put, list and delete objects there",
  AllAccessDisabled: "access denied: the bucket is disabled",
  InvalidAccessKeyId: "unknown access key: check AWS_ACCESS_KEY_ID or the credentials file",
  SignatureDoesNotMatch: "wrong secret key: check AWS_SECRET_ACCESS_KEY or the credentials file",
  ExpiredToken: "the session token has expired: give new credentials",
  InvalidToken: "invalid session token: check AWS_SESSION_TOKEN",
  RequestTimeTooSkewed: "the clock of this machine is wrong: set it, by NTP for example",
  AuthorizationHeaderMalformed: "wrong region: set AWS_REGION to that of the bucket",
  AuthorizationQueryParametersError: "wrong region, or wrong clock: set AWS_REGION to that of the bucket",
  PermanentRedirect: "wrong region or endpoint: set AWS_REGION and AWS_ENDPOINT to those of the bucket",
  TemporaryRedirect: "wrong region or endpoint: set AWS_REGION and AWS_ENDPOINT to those of the bucket",
  InvalidBucketName: "invalid bucket name",
  NotImplemented: "the store does not know conditional PUTs (If-None-Match): use another one",
  QuotaExceeded: "the quota is used up: raise it",
  ERR_S3_MISSING_CREDENTIALS:
    "credentials are missing: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give --credentials FILE",
  ERR_S3_INVALID_ENDPOINT: "invalid endpoint: set AWS_ENDPOINT to a URL such as https://s3.example.org",
};

/** The code for answers without one, such as to a HEAD, or from a proxy. */
const CODES: Readonly<Record<number, string>> = {
  301: "PermanentRedirect",
  307: "TemporaryRedirect",
  401: "AccessDenied",
  403: "AccessDenied",
  501: "NotImplemented",
};

/** @param code of the S3 protocol, such as `NoSuchBucket`; undefined if the answer had none. */
export function storeError(name: string, code: string | undefined, status: number): StoreError {
  const known = code !== undefined && code in REMEDIES ? code : CODES[status];
  const remedy = known === undefined ? undefined : REMEDIES[known];
  if (remedy !== undefined) return new StoreError("refused", `${name}: ${remedy}`);
  const what = code === undefined ? `status ${status}` : `${code} (status ${status})`;
  const isLate = code === "RequestTimeout" || [408, 409, 425, 429].includes(status);
  const isLasting = status >= 400 && status < 500 && !isLate;
  if (isLasting) return new StoreError("refused", `${name}: the store answers ${what}`);
  return new StoreError("busy", `${name}: the store answers ${what}`);
}

/** The code in a store's answer, which is XML. */
export function codeIn(body: string): string | undefined {
  return /<Code>([A-Za-z0-9_.-]{1,100})<\/Code>/.exec(body)?.[1];
}
