/** Goal: a server that is killed and started again is a pause for the node that shows its export, and nothing else. */
import { expect, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { fio, VERIFY } from "../support/fio.ts";
import { RemoteServer, SERVER_NAMES, useBinary } from "../support/remote-server.ts";
import { BINARY, Server } from "../support/server.ts";
import { describeTransports } from "../support/transports.ts";

const MIB = 2 ** 20;
/** How often a server is killed while fio runs; scripts/restarts asks for more. */
const RESTARTS = Number(process.env["RESTARTS"] ?? 3);

useBinary(BINARY);

describeTransports((_, { path: node }) => {
  test.each([...SERVER_NAMES])(
    "%s, killed and started again under fio",
    async (name) => {
      const directory = `/mnt/${name}`;
      mkdirSync(directory, { recursive: true });
      await using remote = new RemoteServer(name, directory, 16 * MIB);
      await remote.start();
      const device = await Server.start("nbd", remote.uri, node);
      const progress = { killed: 0, verified: 0 };
      const goesOn = (): boolean => progress.killed < RESTARTS || progress.verified === 0;
      const kills = (async () => {
        while (goesOn()) {
          await Bun.sleep(200 + 37 * (progress.killed % 11));
          await remote.kill();
          await Bun.sleep(20 * (progress.killed % 5));
          await remote.start();
          progress.killed += 1;
        }
      })();
      while (goesOn()) {
        const options = [
          "--bs=4k",
          "--iodepth=16",
          "--size=16M",
          "--fsync=64",
          `--randseed=${progress.verified}`,
        ];
        expect(await fio(node, ...options, ...VERIFY)).toMatchObject({ errors: 0 });
        progress.verified += 1;
      }
      await kills;
      expect(await device.stop()).toBe(0);
      const lines = (await device.errors).split("\n");
      expect(lines.filter((line) => line.includes("connected again")).length).toBeGreaterThan(0);
      console.log(
        `${name} on ${node}: killed ${progress.killed} times under ${progress.verified} runs of fio`,
      );
    },
    1_200_000,
  );
});
