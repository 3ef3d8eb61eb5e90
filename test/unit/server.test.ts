/** The servers: many clients on one device, and what those get who misbehave. Both promise the same. */
import { describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import type { ServerOptions } from "../../src/nbd/server/served-export.ts";
import { NbdServer } from "../../src/nbd/event/server.ts";
import { TightServer } from "../../src/nbd/server/server.ts";
import { Dispatch } from "../../src/dispatch.ts";
import type { BlockDevice } from "../../src/device.ts";
import { parseServerTarget } from "../../src/nbd/server/target.ts";
import { AsyncStore } from "../support/async-devices.ts";
import {
  clientFlags,
  FIXED,
  goData,
  NO_ZEROES,
  OPT,
  option,
  optionOfLength,
} from "../support/golden-handshake.ts";
import * as nbd from "../support/golden.ts";
import { memoryUse } from "../support/memory-use.ts";
import { pattern, Random } from "../support/random.ts";
import { RawClient } from "../support/raw-client.ts";
import { RestlessDevice } from "../support/restless-device.ts";
import { MemoryShadow, Shadow } from "../support/shadow.ts";
import { until } from "../support/shell.ts";

const SIZE = 32 * 2 ** 20;
const MIB = 2 ** 20;

/** A kind of server, and a device for it. */
interface Kind {
  readonly Server: typeof NbdServer | typeof TightServer;
  readonly make: () => BlockDevice;
}

const EVENT: Kind = { Server: NbdServer, make: () => new AsyncStore(SIZE) };
const SERVERS: readonly (readonly [string, Kind])[] = [
  ["event", EVENT],
  ["tight, of a plain device", { Server: TightServer, make: () => new Shadow(SIZE) }],
  ["tight, of memory", { Server: TightServer, make: () => new MemoryShadow(SIZE) }],
  ["tight, of a device that takes its time", { Server: TightServer, make: () => new AsyncStore(SIZE) }],
  [
    "tight, of a device that is woken",
    { Server: TightServer, make: () => new RestlessDevice(SIZE, new Random(1)) },
  ],
];

/** A server on a TCP port of its own. */
class Running implements AsyncDisposable {
  readonly lines: string[] = [];
  readonly server: NbdServer | TightServer;
  readonly ended: Promise<void>;

  private constructor({ Server }: Kind, device: BlockDevice, options: ServerOptions, onReady: () => void) {
    const log = (line: string): unknown => this.lines.push(line);
    const target = parseServerTarget("tcp:127.0.0.1:0");
    this.server = new Server(target, new Dispatch(device, { log }), { log, ...options });
    this.ended = this.server.serve(onReady).finally(() => device.close?.());
  }

  static async start(
    kind: Kind,
    options: ServerOptions = {},
    device: BlockDevice = kind.make(),
  ): Promise<Running> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const running = new Running(kind, device, options, resolve);
    await promise;
    return running;
  }

  get uri(): string {
    return this.server.path;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.server.detach();
    await this.ended;
  }
}

/** The client writes and reads, and gets what it wrote. */
async function works(client: RawClient, offset = 0): Promise<void> {
  const payload = pattern(4096, offset + 7);
  const requests: readonly nbd.Request[] = [
    { command: nbd.WRITE, cookie: 1n, offset, payload },
    { command: nbd.READ, cookie: 2n, offset, length: payload.length },
  ];
  const before = client.received.length;
  client.send(nbd.encodeAll(requests));
  const bytes = await client.bytes(before + 32 + payload.length);
  const replies = nbd.decodeReplies(bytes.slice(before), requests);
  expect(replies.map((reply) => reply.error)).toEqual([0, 0]);
  expect(replies[1]?.payload).toEqual(payload);
}

/** Clients that come, say half a word, and go. */
async function connects(uri: string, count: number): Promise<void> {
  for (let left = count; left > 0; left -= 50) {
    const clients = await Promise.all(Array.from({ length: 50 }, () => RawClient.connect(uri)));
    for (const client of clients) client.send(clientFlags(FIXED).slice(0, 2));
    for (const client of clients) client[Symbol.dispose]();
  }
}

describe.each(SERVERS)("%s:", (_name, kind) => {
  describe("clients that misbehave are cut off with one line, and others do not notice", () => {
    test.each([
      ["garbage", new TextEncoder().encode("SSH-2.0-OpenSSH_9.9\r\n")],
      [
        "a giant option",
        nbd.concatenate([clientFlags(FIXED), optionOfLength(OPT.GO, 2 ** 31, new Uint8Array())]),
      ],
      [
        "an unknown export",
        nbd.concatenate([clientFlags(FIXED), option(OPT.EXPORT_NAME, Uint8Array.of(65))]),
      ],
      [
        "no request",
        nbd.concatenate([clientFlags(FIXED), option(OPT.GO, goData("")), new Uint8Array(28).fill(0x55)]),
      ],
    ])("%s", async (_, bytes) => {
      await using running = await Running.start(kind);
      using good = await RawClient.transmitting(running.uri);
      using bad = await RawClient.connect(running.uri);
      bad.send(bytes);
      await bad.closed();
      await works(good);
      expect(running.lines).toHaveLength(1);
      expect(running.lines[0]).toMatch(/^client 2 \(.*127\.0\.0\.1\) was cut off: /);
    });

    test("silence in the handshake", async () => {
      await using running = await Running.start(kind, { handshakeMs: 50 });
      using good = await RawClient.transmitting(running.uri);
      using silent = await RawClient.connect(running.uri);
      using slow = await RawClient.connect(running.uri);
      slow.send(clientFlags(FIXED).slice(0, 3));
      await silent.closed();
      await slow.closed();
      await works(good);
      expect(running.lines).toHaveLength(2);
      expect(running.lines[0]).toContain("its handshake took too long");
    });

    test("half a request and silence", async () => {
      await using running = await Running.start(kind, { stallMs: 60 });
      using good = await RawClient.transmitting(running.uri);
      using half = await RawClient.transmitting(running.uri);
      const write = nbd.encode({ command: nbd.WRITE, cookie: 1n, offset: 0, payload: pattern(4096) });
      half.send(write.slice(0, 1000));
      await half.closed();
      await works(good);
      expect(running.lines).toEqual([
        expect.stringContaining("stopped in the middle of a request or a reply"),
      ]);
    });

    test("a client that stops reading: memory stays bounded, and it is cut off", async () => {
      await using running = await Running.start(kind, { stallMs: 200 });
      using good = await RawClient.transmitting(running.uri);
      const before = memoryUse().resident;
      using deaf = await RawClient.transmitting(running.uri);
      deaf.pause();
      const requests = Array.from({ length: 2000 }, (_, index) => ({
        command: nbd.READ,
        cookie: BigInt(index),
        offset: 0,
        length: MIB,
      }));
      deaf.send(nbd.encodeAll(requests));
      await works(good);
      await until("it is cut off", () => running.lines.length === 1);
      expect(running.lines[0]).toContain("stopped in the middle of a request or a reply");
      await works(good);
      expect(memoryUse().resident - before).toBeLessThan(256 * MIB);
      expect(running.server.statistics.requests).toBeLessThan(200);
    });

    test("an idle client is left alone, however long", async () => {
      await using running = await Running.start(kind, { stallMs: 20, handshakeMs: 200 });
      using idle = await RawClient.transmitting(running.uri);
      using other = await RawClient.connect(running.uri);
      // The other's time is ten times a stall's: long enough to see that no stall was found.
      await other.closed();
      expect(idle.isClosed).toBe(false);
      await works(idle);
    });
  });

  describe("limits", () => {
    test("no more clients than allowed; one that leaves makes room", async () => {
      await using running = await Running.start(kind, { maxConnections: 2 });
      const first = await RawClient.transmitting(running.uri);
      using second = await RawClient.transmitting(running.uri);
      using refused = await RawClient.connect(running.uri);
      using refusedToo = await RawClient.connect(running.uri);
      await refused.closed();
      await refusedToo.closed();
      expect(running.lines).toEqual(["there are 2 clients: no more are taken for now"]);
      first[Symbol.dispose]();
      await works(second);
      await until("there is room", async () => {
        using next = await RawClient.connect(running.uri);
        return (await next.bytes(18)).length === 18;
      });
    });

    test("ten thousand connects leave nothing behind", async () => {
      await using running = await Running.start(kind);
      using good = await RawClient.transmitting(running.uri);
      await connects(running.uri, 1000);
      await works(good);
      Bun.gc(true);
      const before = memoryUse().resident;
      const files = readdirSync("/proc/self/fd").length;
      await connects(running.uri, 9000);
      await works(good);
      await until("all sockets are closed", () => readdirSync("/proc/self/fd").length <= files + 4);
      Bun.gc(true);
      expect(memoryUse().resident - before).toBeLessThan(48 * MIB);
    }, 60_000);
  });

  describe("clients together", () => {
    test("what one has written and flushed, another reads", async () => {
      await using running = await Running.start(kind);
      const clients = await Promise.all(Array.from({ length: 8 }, () => RawClient.transmitting(running.uri)));
      await Promise.all(clients.map((client, index) => works(client, index * 4096)));
      for (const [index, client] of clients.entries()) {
        const at = ((index + 1) % clients.length) * 4096;
        const request = { command: nbd.READ, cookie: 9n, offset: at, length: 4096 };
        const before = client.received.length;
        client.send(nbd.encode(request));
        const bytes = await client.bytes(before + 16 + 4096);
        expect(nbd.decodeReplies(bytes.slice(before), [request])[0]?.payload).toEqual(pattern(4096, at + 7));
        client[Symbol.dispose]();
      }
      await until("all are counted", () => running.server.statistics.requests === 24);
    });
  });
});

const PATIENT: readonly (readonly [string, Kind])[] = [
  ["event", EVENT],
  ["tight", { ...EVENT, Server: TightServer }],
];

describe.each(PATIENT)("%s, of a device that takes its time:", (_name, kind) => {
  test("at the end requests in flight are answered, then the device is flushed", async () => {
    const device = new AsyncStore(SIZE);
    const gate = Promise.withResolvers<void>();
    const calls: number[] = [];
    device.hold = (_, length) => {
      calls.push(length);
      return length === 512 ? gate.promise : undefined;
    };
    const running = await Running.start(kind, {}, device);
    using client = await RawClient.transmitting(running.uri);
    const request = { command: nbd.READ, cookie: 1n, offset: 0, length: 512 };
    client.send(nbd.encode(request));
    await until("the device has it", () => device.inFlight === 1);
    running.server.detach();
    using late = await RawClient.connect(running.uri).catch(() => undefined);
    expect(late === undefined || (await late.bytes(1)).length === 0).toBe(true);
    gate.resolve();
    expect(nbd.decodeReplies(await client.bytes(528), [request])).toHaveLength(1);
    await running.ended;
    await client.closed();
    expect(calls).toEqual([512, 0]);
  });

  test("cut() waits for nobody", async () => {
    const device = new AsyncStore(SIZE);
    device.hold = () => Promise.withResolvers<void>().promise;
    const running = await Running.start(kind, {}, device);
    using client = await RawClient.transmitting(running.uri);
    client.send(nbd.encode({ command: nbd.READ, cookie: 1n, offset: 0, length: 512 }));
    await until("the device has it", () => device.inFlight === 1);
    running.server.cut();
    await expect(running.ended).rejects.toThrow("was cut off before its requests were answered");
    await client.closed();
  });
});

describe("the tight server", () => {
  const PLAIN: Kind = { Server: TightServer, make: () => new Shadow(SIZE) };

  test("memory for long payloads is bounded for all clients together; who gets none waits for it", async () => {
    await using running = await Running.start(PLAIN);
    const clients = await Promise.all(Array.from({ length: 12 }, () => RawClient.transmitting(running.uri)));
    using good = await RawClient.transmitting(running.uri);
    const before = memoryUse().resident;
    const read = { command: nbd.READ, cookie: 1n, offset: 0, length: SIZE };
    for (const client of clients) {
      client.pause();
      client.send(nbd.encode(read));
    }
    // Each of 32 MiB counts for 30, and there are 256.
    await until("some have got memory", () => running.server.statistics.requests === 8);
    await works(good);
    expect(running.server.statistics.requests).toBe(8 + 2);
    expect(memoryUse().resident - before).toBeLessThan((256 + 128) * MIB);
    for (const client of clients) {
      client.resume();
      expect(await client.size(SIZE + 16)).toBe(SIZE + 16);
      client[Symbol.dispose]();
    }
    expect(running.lines).toEqual([]);
  }, 30_000);

  test("at the end a client gets the replies that it is owed, and the device is flushed", async () => {
    const device = new Shadow(SIZE);
    const running = await Running.start(PLAIN, {}, device);
    using client = await RawClient.transmitting(running.uri);
    client.pause();
    client.send(nbd.encode({ command: nbd.READ, cookie: 1n, offset: 0, length: SIZE }));
    await until("the device has answered", () => running.server.statistics.requests === 1);
    running.server.detach();
    client.resume();
    expect(await client.size(SIZE + 16)).toBe(SIZE + 16);
    await running.ended;
    await client.closed();
    expect(device.calls).toEqual([`read 0+${SIZE}`, "flush"]);
  });

  test("cut() waits for nobody", async () => {
    const running = await Running.start(PLAIN);
    using client = await RawClient.transmitting(running.uri);
    client.pause();
    client.send(nbd.encode({ command: nbd.READ, cookie: 1n, offset: 0, length: SIZE }));
    await until("the device has answered", () => running.server.statistics.requests === 1);
    running.server.cut();
    await expect(running.ended).rejects.toThrow("was cut off before its requests were answered");
  });

  test("requests that come with the end of the handshake are answered, and the last ones before a hang-up", async () => {
    await using running = await Running.start(PLAIN);
    using client = await RawClient.connect(running.uri);
    const read: nbd.Request = { command: nbd.READ, cookie: 1n, offset: 0, length: 512 };
    const handshake = [clientFlags(FIXED | NO_ZEROES), option(OPT.EXPORT_NAME)];
    client.send(
      nbd.concatenate([...handshake, nbd.encode(read), nbd.encode({ command: nbd.DISC, cookie: 2n })]),
    );
    await client.closed();
    expect(nbd.decodeReplies(client.received.slice(18 + 10), [read])).toHaveLength(1);
  });
});
