/**
 * A file on a web server, read by ranges as it is needed: an image is mounted without being downloaded.
 *
 *     tsbuse run devices/http.ts auto -- url=https://example.org/disk.img
 */
import {
  type BlockDevice,
  DEFAULT_BLOCK_SIZE,
  ErrnoError,
  type OptionTable,
  type OptionValues,
  UserError,
} from "tsbuse";

export const options = { url: { type: "string" } } as const satisfies OptionTable;

/** A file in the version that it had at the start: bytes are useless beside those of another version. */
export class HttpDisk implements BlockDevice {
  readonly identity?: string;

  constructor(
    readonly url: string,
    readonly size: number,
    readonly version: string | null,
  ) {
    // Without passwords that the address may contain, even in its query. A server that names no version may have
    // another file tomorrow.
    const { origin, pathname, search } = new URL(url);
    const hash = new Bun.CryptoHasher("sha256").update(`${pathname}${search} ${version}`).digest("hex");
    if (version !== null) this.identity = `${origin}${pathname.slice(0, 500)} ${hash}`;
  }

  async read(target: Uint8Array, offset: number): Promise<void> {
    const response = await fetch(this.url, {
      headers: { range: `bytes=${offset}-${offset + target.length - 1}`, "accept-encoding": "identity" },
    });
    const bytes = await response.bytes();
    if (response.status !== 206 || bytes.length !== target.length) {
      throw new ErrnoError("EIO", `${this.url}: status ${response.status} with ${bytes.length} bytes`);
    }
    if (versionOf(response) !== this.version) throw new ErrnoError("EIO", `${this.url} has changed`);
    target.set(bytes);
  }
}

function versionOf({ headers }: Response): string | null {
  return headers.get("etag") ?? headers.get("last-modified");
}

export default async ({ url }: OptionValues<typeof options>): Promise<BlockDevice> => {
  const response = await fetch(url, { method: "HEAD", headers: { "accept-encoding": "identity" } });
  if (!response.ok) throw new UserError(`${url}: status ${response.status}: check the address`);
  const length = Number(response.headers.get("content-length"));
  if (response.headers.get("accept-ranges") !== "bytes" || length < DEFAULT_BLOCK_SIZE) {
    throw new UserError(`${url} cannot be read by ranges, or is empty: give a file on another server`);
  }
  return new HttpDisk(url, length - (length % DEFAULT_BLOCK_SIZE), versionOf(response));
};
