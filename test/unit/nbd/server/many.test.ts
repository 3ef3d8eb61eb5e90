/** Goal: a program that serves one device after another uses no more of the system's resources than one needs. */
import { expect, spyOn, test } from "bun:test";
import { serve } from "../../../../src/index.ts";
import { libc } from "../../../../src/libc/library.ts";
import { AsyncStore } from "../../../support/async-devices.ts";
import * as nbd from "../../../support/golden.ts";
import { type OwnUse, ownUse } from "../../../support/own-use.ts";
import { RawClient } from "../../../support/raw-client.ts";

const HALF = 50;
const READ: nbd.Request = { command: nbd.READ, cookie: 1n, offset: 0, length: 4096 };

async function serveMany(count: number): Promise<OwnUse> {
  for (let done = 0; done < count; done += 1) {
    await using server = await serve(new AsyncStore(2 ** 20), "tcp:127.0.0.1:0", {
      requestTimeoutMs: 10_000,
    });
    using client = await RawClient.transmitting(server.path);
    client.send(nbd.encode(READ));
    await client.bytes(16 + 4096);
  }
  return ownUse();
}

test.each([
  ["io_uring", false],
  ["a thread", true],
])(
  "servers that wait by %s leave no threads and no file descriptors",
  async (_, isRingMissing) => {
    const ring = isRingMissing ? spyOn(libc, "io_uring_setup").mockReturnValue(-1) : undefined;
    try {
      const before = await serveMany(HALF);
      const after = await serveMany(HALF);
      // Helpers of the runtime come and go, and the client's sockets are closed a little later.
      expect(after.descriptors).toBeLessThan(before.descriptors + HALF / 2);
      expect(after.threads).toBeLessThan(before.threads + HALF / 2);
    } finally {
      ring?.mockRestore();
    }
  },
  60_000,
);
