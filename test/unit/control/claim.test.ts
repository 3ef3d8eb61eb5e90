/** Goal: whatever becomes of the process that serves a device, who takes it over knows whether it is let go of. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { Claim } from "../../../src/control/claim.ts";
import { writeFiles } from "../../support/files.ts";
import { TemporaryDirectory } from "../../support/temporary.ts";

const TARGET = "/dev/ublkb4095";
/** Serves nothing, and lets go of it as it is told. */
const SERVER = `
import { ControlServer } from ${JSON.stringify(join(import.meta.dir, "../../../src/control/server.ts"))};
const end = () => process.kill(process.pid, "SIGKILL");
const letGo = {
  stays: () => "stays",
  "leaves and ends": () => (setTimeout(end, 50), "leaves"),
  "is killed": () => (end(), new Promise(() => undefined)),
  "refuses": () => { throw new Error("not now"); },
}[process.argv[2]];
const transport = {
  path: "${TARGET}", inFlight: 0, statistics: {}, handover: { letGo, takeBack() {}, handedOn() {} },
};
const dispatch = { size: 4096, blockSize: 4096, capabilities: { write: true } };
ControlServer.open({ transport, dispatch, words: [], version: "0", runsCommand: false }, console.log);
setInterval(() => undefined, 1000);
console.log("ready");
`;

test.each([
  ["stays", undefined],
  ["leaves and ends", undefined],
  ["is killed", undefined],
  ["refuses", "not now"],
])(
  "a process that %s: taken over, but for %p",
  async (how, failure) => {
    using directory = new TemporaryDirectory();
    const path = writeFiles(directory.path, { "server.ts": SERVER });
    const server = Bun.spawn([process.execPath, path, how], { stdio: ["ignore", "pipe", "inherit"] });
    await server.stdout.getReader().read();
    try {
      using claim = await Claim.make(TARGET);
      const released = claim.release().then(
        () => undefined,
        (error: Error) => error.message,
      );
      expect(await released).toBe(failure);
    } finally {
      server.kill("SIGKILL");
    }
  },
  30_000,
);
