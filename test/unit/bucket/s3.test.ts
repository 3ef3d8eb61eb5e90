/** The client of a store, against a server that answers wrongly, late, or not at all, as a store may. */
import { expect, test } from "bun:test";
import { parseAddress } from "../../../devices/bucket/address.ts";
import { type Credentials, type S3Options, S3Store } from "../../../devices/bucket/s3.ts";
import { userError } from "../../support/failure.ts";
import { until } from "../../support/shell.ts";

/** The server's action for each request, in turn; the last one repeats. */
type Answer = (request: Request) => Response | Promise<Response>;

async function against(
  answers: Answer[],
  use: (store: S3Store, lines: string[]) => Promise<void>,
  more: Partial<S3Options> = {},
) {
  const requests: string[] = [];
  await using server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: async (request) => {
      requests.push(`${request.method} ${request.headers.get("if-none-match") ?? ""}`.trim());
      return (answers.length > 1 ? answers.shift() : answers[0])?.(request) ?? new Response();
    },
  });
  const lines: string[] = [];
  const credentials = { accessKeyId: "key", secretAccessKey: "hidden" };
  const access = { endpoint: server.url.origin, region: "here", credentials };
  const log = (line: string): void => void lines.push(line);
  await use(new S3Store({ bucket: "b", prefix: "p/", ...access, log, ...more }), lines);
  return requests;
}

const code =
  (status: number, name: string): Answer =>
  () =>
    new Response(`<Error><Code>${name}</Code></Error>`, { status });
const BODY = new Uint8Array([1, 2, 3]);

test.each([
  [404, "NoSuchBucket", "there is no such bucket"],
  [403, "AccessDenied", "access denied"],
  [403, "SignatureDoesNotMatch", "wrong secret key"],
  [403, "RequestTimeTooSkewed", "the clock of this machine is wrong"],
  [400, "AuthorizationHeaderMalformed", "wrong region"],
  [301, "PermanentRedirect", "wrong region or endpoint"],
  [501, "NotImplemented", "the store does not know conditional PUTs"],
  [400, "Unheard", "the store answers Unheard (status 400)"],
])("%i %s is an error at once while a disk is opened, and tells no secret", async (status, name, line) => {
  const requests = await against([code(status, name)], async (store) => {
    const failure = await store.create("key", BODY).catch(String);
    expect(failure).toContain(`s3://b/p: ${line}`);
    expect(failure).not.toContain("hidden");
  });
  expect(requests).toEqual(["PUT *"]);
});

test.each([
  "s3://b/../c/d",
  "s3://../b",
  "s3://b/a/./d",
  "s3://b/a//d",
  "s3://b",
  "s3://b/",
  "http://b/a",
  "s3://k:s@b/a",
])("%s is no address of a disk, and is not repeated: there may be a password in it", (address) => {
  const message = userError(() => parseAddress(address));
  expect(message).toStartWith("invalid address of the disk: give s3://BUCKET/PREFIX");
  expect(message).not.toContain(address);
});

test("an address has letters, digits and dots, and slashes at its end or not", () => {
  expect(parseAddress("s3://b.c/A-1/..d/e.//")).toEqual({ bucket: "b.c", prefix: "A-1/..d/e./" });
});

test("what may pass is tried again, and what came before an answer was lost is found", async () => {
  const slow = code(400, "RequestTimeout");
  const requests = await against(
    [code(503, "SlowDown"), slow, () => new Response("", { status: 412 })],
    async (store) => {
      expect(await store.create("key", BODY)).toBe("exists");
    },
  );
  expect(requests).toEqual(["PUT *", "PUT *", "PUT *"]);
});

const answersSlowly: Answer = async () => {
  await Bun.sleep(1000);
  return new Response();
};

test("a network that is slow for good is given more time with each try", async () => {
  const limits = { answerMs: 10, byteMs: 200 };
  const requests = await against(
    [answersSlowly],
    async (store) => {
      expect(await store.create("key", BODY)).toBe("created");
    },
    { limits },
  );
  expect(requests.length).toBeGreaterThan(1);
}, 30_000);

test("a disk that is served waits until a permission is back, and says so once", async () => {
  const denied = code(403, "AccessDenied");
  const answers = [denied, denied, () => new Response(BODY, { status: 206 })];
  await against(answers, async (store, lines) => {
    store.patience.isEndless = true;
    expect(await store.get("key", 0, 3)).toEqual(BODY);
    expect(lines).toEqual([expect.stringContaining("access denied"), "s3://b/p answers again"]);
  });
});

test("temporary credentials that have expired are read again from where they come", async () => {
  const keys: string[] = [];
  const given = ["old", "old", "new"];
  const credentials = (): Credentials => ({
    accessKeyId: given.shift() ?? "",
    secretAccessKey: "hidden",
    sessionToken: "token",
  });
  const answer: Answer = (request) => {
    const key = /Credential=(\w+)/.exec(decodeURIComponent(request.url))?.[1] ?? "";
    keys.push(key);
    return key === "old" ? code(400, "ExpiredToken")(request) : new Response("abc");
  };
  await against(
    [answer],
    async (store, lines) => {
      store.patience.isEndless = true;
      expect(await store.get("key", 0, 3)).toEqual(Buffer.from("abc"));
      expect(lines).toEqual([
        "s3://b/p: the session token has expired: give new credentials; requests wait until that is over",
        "s3://b/p answers again",
      ]);
    },
    { credentials },
  );
  expect(keys).toEqual(["old", "old", "new"]);
});

test("a store that lets itself be read and not written to is one line, however much is read", async () => {
  let puts = 0;
  const answer: Answer = (request) => {
    if (request.method === "GET") return new Response(BODY, { status: 206 });
    puts += 1;
    return code(403, puts < 5 ? "QuotaExceeded" : "AccessDenied")(request);
  };
  await against([answer], async (store, lines) => {
    store.patience.isEndless = true;
    const end = new AbortController();
    const put = store.create("key", BODY, end.signal).catch(() => "given up");
    await until("it was tried five times", async () => {
      await store.get("key", 0, 3);
      return puts >= 5;
    });
    expect(lines).toEqual([expect.stringContaining("the quota is used up: raise it; requests wait")]);
    end.abort();
    expect(await put).toBe("given up");
    expect(lines.length).toBe(1);
    await store.get("key", 0, 3);
    expect(lines.slice(1)).toEqual(["s3://b/p answers again"]);
  });
});

test("a server that knows no ranges is read all the same, and what is not there is none", async () => {
  await against([() => new Response(BODY), code(404, "NoSuchKey")], async (store) => {
    expect(await store.get("key", 1, 1)).toEqual(BODY.subarray(1, 2));
    expect(await store.get("key", 1, 1)).toBeUndefined();
  });
});
