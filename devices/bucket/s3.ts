/**
 * Objects in an S3-compatible bucket. Bun's client signs the requests; `fetch` sends them, because only that allows a
 * PUT with a condition.
 */
import { UserError } from "tsbuse";
import type { Listed, ObjectStore, PutResult } from "./parts.ts";
import { Patience } from "./patience.ts";
import { codeIn, StoreError, storeError } from "./store-error.ts";

/** The time limit of any operation, and what each byte adds, in milliseconds. */
const LIMITS = { answerMs: 15_000, byteMs: 1 / 250 };
/** Each retry has more time for its bytes, up to this many times as much: the network may be slow for good. */
const TIMES_MAX = 4;
/** How long a signature is valid, in seconds: clocks differ. */
const SIGNATURE_SECONDS = 900;
const KEYS_PER_LIST = 1000;

export interface S3Options {
  readonly bucket: string;
  /** Ends with a slash, or is empty. */
  readonly prefix: string;
  /** Default: what Bun finds in the environment. The same holds for the next two. */
  readonly endpoint?: string | undefined;
  readonly region?: string | undefined;
  /** A function is called again when the store refuses its credentials: temporary ones expire. */
  readonly credentials?: Credentials | (() => Credentials) | undefined;
  readonly log: (line: string) => void;
  readonly limits?: typeof LIMITS;
  /** Shared with another store. */
  readonly patience?: Patience;
}

export interface Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
}

type Method = "GET" | "PUT" | "DELETE";

interface Answer {
  readonly status: number;
  readonly body: Uint8Array;
}

interface Sent {
  readonly headers: Record<string, string>;
  readonly body?: Uint8Array<ArrayBuffer>;
  /** Bytes sent and received. */
  readonly bytes: number;
  /** How many attempts failed before this one. */
  readonly tries: number;
}

export class S3Store implements ObjectStore {
  readonly name: string;
  readonly patience: Patience;
  #client: Bun.S3Client;
  readonly #prefix: string;
  readonly #limits: typeof LIMITS;
  readonly #options: S3Options;

  constructor(options: S3Options) {
    const { bucket, prefix, log, limits = LIMITS } = options;
    this.name = `s3://${bucket}/${prefix.replace(/\/$/, "")}`;
    this.#options = options;
    this.#prefix = prefix;
    this.#limits = limits;
    this.patience = options.patience ?? new Patience(this.name, log);
    this.#client = clientOf(options);
  }

  /** The objects below another prefix of the same bucket. */
  beside(prefix: string): S3Store {
    return new S3Store({ ...this.#options, prefix, patience: this.patience });
  }

  create(key: string, body: Uint8Array<ArrayBuffer>, signal?: AbortSignal): Promise<PutResult> {
    const headers = {
      "if-none-match": "*",
      "content-type": "application/octet-stream",
      "content-md5": new Bun.CryptoHasher("md5").update(body).digest("base64"),
    };
    return this.patience.insist(async (tries) => {
      const { status, ...answer } = await this.#send(
        "PUT",
        key,
        { headers, body, bytes: body.length, tries },
        signal,
      );
      if (status === 412) return "exists";
      if (status >= 200 && status < 300) return "created";
      throw this.#refusal(status, answer.body);
    }, signal);
  }

  get(key: string, start: number, length: number, signal?: AbortSignal): Promise<Uint8Array | undefined> {
    const headers = { range: `bytes=${start}-${start + length - 1}`, "accept-encoding": "identity" };
    return this.patience.insist(async (tries) => {
      const { status, body } = await this.#send("GET", key, { headers, bytes: length, tries }, signal);
      if (status === 206) return body;
      if (status === 200) return body.subarray(start, start + length);
      if (status === 416) return new Uint8Array(0);
      if (status === 404 && codeOf(body) !== "NoSuchBucket") return undefined;
      throw this.#refusal(status, body);
    }, signal);
  }

  async *list(prefix: string, after?: string, signal?: AbortSignal): AsyncIterable<Listed> {
    let startAfter = after === undefined ? undefined : this.#prefix + after;
    for (;;) {
      const page = await this.patience.insist(() => this.#listPage(prefix, startAfter), signal);
      for (const { key, size = 0 } of page.contents ?? [])
        yield { key: key.slice(this.#prefix.length), size };
      const last = page.contents?.at(-1)?.key;
      if (page.isTruncated !== true || last === undefined) return;
      startAfter = last;
    }
  }

  remove(key: string, signal?: AbortSignal): Promise<void> {
    return this.patience.insist(async (tries) => {
      const { status, body } = await this.#send("DELETE", key, { headers: {}, bytes: 0, tries }, signal);
      if (status < 300 || (status === 404 && codeOf(body) !== "NoSuchBucket")) return;
      throw this.#refusal(status, body);
    }, signal);
  }

  #listPage(prefix: string, startAfter: string | undefined) {
    const query = { prefix: this.#prefix + prefix, maxKeys: KEYS_PER_LIST };
    const listed = this.#client.list(startAfter === undefined ? query : { ...query, startAfter });
    return withinTime(listed, this.#limits.answerMs).catch((error: unknown) => {
      throw this.#failure(error);
    });
  }

  async #send(method: Method, key: string, sent: Sent, signal?: AbortSignal): Promise<Answer> {
    const limit = AbortSignal.timeout(this.#limitMs(sent.bytes, sent.tries));
    try {
      const url = this.#client.presign(this.#prefix + key, { method, expiresIn: SIGNATURE_SECONDS });
      const response = await fetch(url, {
        method,
        headers: sent.headers,
        redirect: "manual",
        signal: signal === undefined ? limit : AbortSignal.any([limit, signal]),
        ...(sent.body !== undefined && { body: sent.body }),
      });
      return { status: response.status, body: await response.bytes() };
    } catch (error) {
      throw this.#failure(error);
    }
  }

  #limitMs(bytes: number, tries: number): number {
    const { answerMs, byteMs } = this.#limits;
    return answerMs + bytes * byteMs * Math.min(1 + tries, TIMES_MAX);
  }

  #refusal(status: number, body: Uint8Array): StoreError {
    const error = storeError(this.name, codeOf(body), status);
    if (error.kind === "refused") this.#renew();
    return error;
  }

  /** The next attempt uses the credentials of that time. */
  #renew(): void {
    if (typeof this.#options.credentials !== "function") return;
    try {
      this.#client = clientOf(this.#options);
    } catch (error) {
      // The file may be half written. Report the refusal, not this.
      if (!(error instanceof UserError)) throw error;
    }
  }

  /** Messages of `fetch` may contain the address, and with it a signature. Its codes do not. */
  #failure(error: unknown): StoreError {
    const code = error instanceof Error && "code" in error ? String(error.code) : undefined;
    const isTimeout = error instanceof Error && error.name === "TimeoutError";
    if (code !== undefined && !isTimeout) {
      const answer = storeError(this.name, code, 0);
      if (answer.kind === "refused") {
        this.#renew();
        return answer;
      }
    }
    const what = isTimeout ? "no answer in time" : (code ?? "no answer");
    return new StoreError(
      "busy",
      `${this.name} is unavailable (${what}): check the endpoint and the network`,
    );
  }
}

function clientOf(options: S3Options): Bun.S3Client {
  const { bucket, endpoint, region, credentials } = options;
  return new Bun.S3Client({
    bucket,
    ...(endpoint !== undefined && { endpoint }),
    ...(region !== undefined && { region }),
    ...(typeof credentials === "function" ? credentials() : credentials),
  });
}

function codeOf(body: Uint8Array): string | undefined {
  return codeIn(new TextDecoder().decode(body.subarray(0, 4096)));
}

async function withinTime<T>(promise: Promise<T>, ms: number): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new DOMException("late", "TimeoutError")), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
