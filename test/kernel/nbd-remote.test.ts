/** Goal: users of a node that shows a server's export notice only a pause when that is killed and started again. */
import { expect, mock, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { connectNbd } from "tsbuse";
import { fio, VERIFY } from "../support/fio.ts";
import { pattern, writeDirect } from "../support/node-io.ts";
import { RemoteServer, SERVER_NAMES, type ServerName, useBinary } from "../support/remote-server.ts";
import { BINARY, Server } from "../support/server.ts";
import { sh, until } from "../support/shell.ts";
import { describeTransports } from "../support/transports.ts";

const MIB = 2 ** 20;
const BYTES = 64 * 1024;
/** How often each server is killed while fio runs; scripts/restarts sets a higher number, and uses all servers. */
const { RESTARTS } = process.env;
const KILLS = Number(RESTARTS ?? 3);
const NAMES: readonly ServerName[] = RESTARTS === undefined ? ["qemu-nbd"] : SERVER_NAMES;

useBinary(BINARY);

/** Kills the server and starts it again after a while, that many times. */
class Killer {
  kills = 0;
  isOver = false;
  readonly #remote: RemoteServer;

  constructor(remote: RemoteServer) {
    this.#remote = remote;
  }

  async run(): Promise<void> {
    while (this.kills < KILLS && !this.isOver) {
      await Bun.sleep(200 + 37 * (this.kills % 11));
      await this.#remote.kill();
      await Bun.sleep(20 * (this.kills % 5));
      await this.#remote.start();
      this.kills += 1;
    }
  }
}

describeTransports((_, { path: node }, neighbour) => {
  test.each([...NAMES])(
    "%s, killed and started again under fio",
    async (name) => {
      const directory = `/mnt/${name}`;
      mkdirSync(directory, { recursive: true });
      await using remote = new RemoteServer(name, directory, 8 * MIB);
      await remote.start();
      const device = await Server.start("nbd", remote.uri, node);
      const killer = new Killer(remote);
      const killed = killer.run();
      let runs = 0;
      try {
        for (; runs === 0 || killer.kills < KILLS; runs += 1) {
          const options = ["--bs=4k", "--iodepth=16", "--size=4M", "--fsync=64", `--randseed=${runs}`];
          expect(await fio(node, ...options, ...VERIFY)).toMatchObject({ errors: 0 });
        }
      } finally {
        killer.isOver = true;
        await killed;
      }
      expect(await device.stop()).toBe(0);
      const lines = (await device.errors).split("\n");
      expect(lines.filter((line) => line.includes("connected again")).length).toBeGreaterThan(0);
      console.log(`${name} on ${node}: killed ${killer.kills} times under ${runs} runs of fio`);
    },
    1_200_000,
  );

  test("a golden image for two, whose server is killed and started again", async () => {
    mkdirSync("/mnt/golden", { recursive: true });
    await using remote = new RemoteServer("nbdkit", "/mnt/golden", 8 * MIB);
    writeFileSync(remote.image, pattern(8 * MIB, 1));
    await remote.start();
    const nodes = [node, neighbour.path];
    const layers = ["cow", "cow:file=/mnt/golden/mine.cow"];
    const devices: Server[] = [];
    for (const [index, path] of nodes.entries())
      devices.push(await Server.start("nbd", remote.uri, path, "--layer", layers[index] ?? ""));
    for (const [index, path] of nodes.entries())
      expect(writeDirect(path, MIB + 512, pattern(BYTES, 2 + index))).toBe(BYTES);
    await remote.kill();
    const seen = nodes.map((path) => sh(`dd if=${path} bs=1M iflag=direct status=none | sha256sum`));
    await remote.start();
    for (const [index, sum] of seen.entries()) {
      const expected = pattern(8 * MIB, 1);
      expected.set(pattern(BYTES, 2 + index), MIB + 512);
      expect(await sum).toBe(`${new Bun.CryptoHasher("sha256").update(expected).digest("hex")}  -`);
    }
    for (const device of devices) expect(await device.stop()).toBe(0);
    expect(new Uint8Array(readFileSync(remote.image))).toEqual(pattern(8 * MIB, 1));
  }, 300_000);
});

const LISTEN = join(import.meta.dir, "../../src/libc/listen.ts");
// A copy of the original module, because the replacement calls the original functions.
const listen = { ...(await import("../../src/libc/listen.ts")) };

/** Sets a tenth of the client's time-out, so that the same happens sooner. */
function setShortTimeout(fd: number, milliseconds: number): number {
  return listen.setUserTimeout(fd, milliseconds / 10);
}

test("a machine that is gone without a word is given up, and found again", async () => {
  await mock.module(LISTEN, () => ({ ...listen, setUserTimeout: setShortTimeout }));
  mkdirSync("/mnt/gone", { recursive: true });
  await using remote = new RemoteServer("nbd-server", "/mnt/gone", MIB);
  await remote.start();
  const lines: string[] = [];
  const device = await connectNbd(remote.uri, { log: (line) => lines.push(line) });
  try {
    // Nothing gets through, and there is no error.
    await sh("ip link set lo down");
    const read = device.read(new Uint8Array(BYTES), 0);
    await until("it is missed", () => lines.length > 0, 100_000);
    expect(lines[0]).toContain("requests wait until it is back");
    await sh("ip link set lo up");
    await read;
  } finally {
    await mock.module(LISTEN, () => listen);
    await sh("ip link set lo up; rm -rf /mnt/gone");
    await device.close?.();
  }
}, 300_000);
