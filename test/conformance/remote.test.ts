/** Goal: other NBD servers can be used as devices, and killed meanwhile, without an error for their users. */
import { describe, expect, test } from "bun:test";
import { type BlockDevice, checkDevice, connectNbd, type WriteOptions } from "../../src/index.ts";
import { RemoteServer, SERVER_NAMES } from "../support/remote-server.ts";
import { sh, until } from "../support/shell.ts";
import { TemporaryDirectory } from "../support/temporary.ts";

const MIB = 2 ** 20;

const OPS = 400;
/** A long pause of the check is one of the server, which takes its time to start again. */
const OPTIONS = { ops: OPS, requestTimeout: 60_000, persistent: true } as const;

describe.each([...SERVER_NAMES])("%s", (name) => {
  test("as a device, which is checked while it is killed and started again", async () => {
    using directory = new TemporaryDirectory();
    await using remote = new RemoteServer(name, directory.path, 4 * MIB);
    await remote.start();
    const progress = new Progress();
    const restarts = (async () => {
      let kills = 0;
      for (; await progress.of(OPS / 4); kills += 1) {
        await remote.kill();
        await remote.start();
      }
      return kills;
    })();
    const report = await checkDevice(async () => progress.watch(await reach(remote.uri)), OPTIONS);
    progress.isOver = true;
    expect(report).toMatchObject({ failure: undefined });
    expect(await restarts).toBeGreaterThan(0);
  }, 120_000);

  test("tells its holes and its data", async () => {
    using directory = new TemporaryDirectory();
    await using remote = new RemoteServer(name, directory.path, 4 * MIB);
    await sh(`dd if=/dev/urandom of=${remote.image} bs=1M count=1 seek=2 conv=notrunc status=none`);
    await remote.start();
    const device = await connectNbd(remote.uri);
    // The one that has no metadata contexts.
    if (name === "nbd-server") expect(device.extents).toBeUndefined();
    else expect(await dataOf(device)).toEqual([{ at: 2 * MIB, length: MIB }]);
    await device.close?.();
  }, 30_000);
});

/** Counts what a device has been asked for. */
class Progress {
  isOver = false;
  #requests = 0;

  watch(device: BlockDevice): BlockDevice {
    const read = device.read.bind(device);
    const write = device.write?.bind(device);
    return Object.assign(device, {
      read: (target: Uint8Array, offset: number) => this.#count(read(target, offset)),
      write: (source: Uint8Array, offset: number, options: WriteOptions) =>
        this.#count(write?.(source, offset, options)),
    });
  }

  /** Waits for that many more. Returns false if no more come. */
  async of(requests: number): Promise<boolean> {
    const wanted = this.#requests + requests;
    await until("the check goes on", () => this.isOver || this.#requests >= wanted, 100_000);
    return !this.isOver;
  }

  #count<T>(done: T): T {
    this.#requests += 1;
    return done;
  }
}

/** The device of a server that may be away for a moment. */
async function reach(uri: string): Promise<BlockDevice> {
  let device: BlockDevice | undefined;
  await until(`${uri} is there`, async () => {
    device = await connectNbd(uri).catch(() => undefined);
    return device !== undefined;
  });
  if (device === undefined) throw new Error("unreachable");
  return device;
}

/** Where a device says that there is data. */
async function dataOf(device: BlockDevice): Promise<{ at: number; length: number }[]> {
  const found: { at: number; length: number }[] = [];
  for (let at = 0; at < device.size;) {
    for (const { length, zero } of (await device.extents?.(at, device.size - at)) ?? []) {
      if (!zero) found.push({ at, length });
      at += length;
    }
  }
  return found;
}

test("a server that takes no more than 64 KiB at once, in blocks of 1 KiB", async () => {
  using directory = new TemporaryDirectory();
  const socket = directory.join("small.sock");
  const policy = "blocksize-minimum=1024 blocksize-maximum=65536 blocksize-error-policy=error";
  const command = [
    "nbdkit",
    "-f",
    "-U",
    socket,
    "--filter=blocksize-policy",
    "memory",
    "4M",
    ...policy.split(" "),
  ];
  const server = Bun.spawn(command, { stdio: ["ignore", "ignore", "ignore"] });
  try {
    await sh(`for i in $(seq 100); do test -S ${socket} && exit; sleep 0.1; done; exit 1`);
    const device = await connectNbd(`unix:${socket}`);
    expect(device.blockSize).toBe(1024);
    await device.close?.();
    expect(await checkDevice(() => connectNbd(`unix:${socket}`), OPTIONS)).toMatchObject({
      failure: undefined,
    });
  } finally {
    server.kill();
    await server.exited;
  }
}, 60_000);
