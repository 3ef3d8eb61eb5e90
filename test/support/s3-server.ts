/** An object store in memory with the part of S3 that a disk in a bucket needs. It does not check signatures. */
export class S3Server implements Disposable {
  readonly objects = new Map<string, Uint8Array>();
  readonly #server: Bun.Server<undefined>;
  #paused: PromiseWithResolvers<void> | undefined;
  #denial: { readonly request: RegExp; readonly begun: PromiseWithResolvers<void> } | undefined;

  constructor() {
    this.#server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      idleTimeout: 0,
      maxRequestBodySize: 2 ** 30,
      fetch: (request) => this.#answer(request),
    });
  }

  /** The variables from which a client takes the store's address. */
  get environment(): Record<string, string> {
    return {
      AWS_ACCESS_KEY_ID: "key",
      AWS_SECRET_ACCESS_KEY: "secret",
      AWS_REGION: "us-east-1",
      AWS_ENDPOINT: `http://127.0.0.1:${this.#server.port}`,
    };
  }

  /**
   * Refuses requests that match from now on: "PUT /disks/a/log/…".
   * @returns a function that waits for the first one, calls `then`, and ends the refusals.
   */
  deny(request: RegExp): (then?: () => Promise<void>) => Promise<void> {
    const begun = Promise.withResolvers<void>();
    this.#denial = { request, begun };
    return async (then) => {
      await begun.promise;
      await then?.();
      this.#denial = undefined;
    };
  }

  /** Accepts requests, but answers none until {@link resume}. */
  pause(): void {
    this.#paused ??= Promise.withResolvers();
  }

  resume(): void {
    this.#paused?.resolve();
    this.#paused = undefined;
  }

  [Symbol.dispose](): void {
    this.resume();
    void this.#server.stop(true);
  }

  async #answer(request: Request): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    await this.#paused?.promise;
    if (this.#denial?.request.test(`${request.method} ${pathname}`) === true) {
      this.#denial.begun.resolve();
      return failure(403, "AccessDenied");
    }
    const key = decodeURIComponent(pathname).replace(/^\/[^/]+\/?/, "");
    if (request.method === "PUT") return this.#put(key, request);
    if (request.method === "DELETE") {
      this.objects.delete(key);
      return new Response(null, { status: 204 });
    }
    if (key === "") return this.#list(searchParams);
    const object = this.objects.get(key);
    if (object === undefined) return failure(404, "NoSuchKey");
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.get("range") ?? "") ?? [];
    if (first === undefined) return new Response(object.slice());
    if (Number(first) >= object.length) return failure(416, "InvalidRange");
    return new Response(object.slice(Number(first), Number(last) + 1), { status: 206 });
  }

  async #put(key: string, request: Request): Promise<Response> {
    const body = await request.bytes();
    if (request.headers.get("if-none-match") === "*" && this.objects.has(key))
      return failure(412, "PreconditionFailed");
    this.objects.set(key, body);
    return new Response();
  }

  #list(query: URLSearchParams): Response {
    const [prefix, after] = [query.get("prefix") ?? "", query.get("start-after") ?? ""];
    const most = Number(query.get("max-keys") ?? 1000);
    const keys = [...this.objects.keys()].filter((key) => key.startsWith(prefix) && key > after).toSorted();
    const contents = keys
      .slice(0, most)
      .map((key) => `<Contents><Key>${key}</Key><Size>${this.objects.get(key)?.length}</Size></Contents>`);
    const isTruncated = keys.length > most;
    return new Response(
      `<ListBucketResult><IsTruncated>${isTruncated}</IsTruncated>${contents.join("")}</ListBucketResult>`,
    );
  }
}

function failure(status: number, code: string): Response {
  return new Response(`<Error><Code>${code}</Code></Error>`, { status });
}
