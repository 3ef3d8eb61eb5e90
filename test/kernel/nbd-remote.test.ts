/** Goal: a server that is killed and started again is a pause for the node that shows its export, and nothing else. */
import { expect, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { fio, VERIFY } from "../support/fio.ts";
import { RemoteServer, SERVER_NAMES, type ServerName, useBinary } from "../support/remote-server.ts";
import { BINARY, Server } from "../support/server.ts";
import { describeTransports } from "../support/transports.ts";

const MIB = 2 ** 20;
/** How often each server is killed while fio runs; scripts/restarts asks for more, and of all of them. */
const { RESTARTS } = process.env;
const KILLS = Number(RESTARTS ?? 3);
const NAMES: readonly ServerName[] = RESTARTS === undefined ? ["qemu-nbd"] : SERVER_NAMES;

useBinary(BINARY);

/** Kills it, and starts it again after a while, until it has been so many times. */
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

describeTransports((_, { path: node }) => {
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
});
