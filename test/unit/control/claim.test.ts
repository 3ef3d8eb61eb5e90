/** Goal: whatever happens to the process that serves a device, the one that takes over knows whether it let go. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { Claim } from "../../../src/control/claim.ts";
import { writeFiles } from "../../support/files.ts";
import { TemporaryDirectory } from "../../support/temporary.ts";

const TARGET = "/dev/ublkb4095";
/** Serves nothing, and lets go of the device as told. */
const SERVER = `
import { ControlServer } from ${JSON.stringify(join(import.meta.dir, "../../../src/control/server.ts"))};
const end = () => process.kill(process.pid, "SIGKILL");
const letGo = {
  stays: () => "stays",
  "leaves and ends": () => (setTimeout(end, 50), "leaves"),
  "leaves and ends late": () => "leaves",
  "is killed": () => (end(), new Promise(() => undefined)),
  "refuses": () => { throw new Error("not now"); },
}[process.argv[2]];
const transport = {
  path: "${TARGET}", inFlight: 0, statistics: {}, handover: { fds: {}, letGo, takeBack() {}, handedOn() {} },
};
const onHandedOn = (pid) => console.log("handed on to " + pid);
const dispatch = { size: 4096, blockSize: 4096, capabilities: { write: true } };
ControlServer.open({ transport, dispatch, words: [], version: "0", runsCommand: false, onHandedOn }, console.log);
setInterval(() => undefined, 1000);
console.log("ready");
`;

test.each([
  ["stays", true],
  ["leaves and ends", true],
  ["leaves and ends late", true],
  ["is killed", false],
  ["refuses", "not now"],
])(
  "a process that %s: whether it let go in order, %p",
  async (how, isWhole) => {
    using directory = new TemporaryDirectory();
    const path = writeFiles(directory.path, { "server.ts": SERVER });
    const env = { ...process.env, NOTIFY_SOCKET: "/run/nobody" };
    const server = Bun.spawn([process.execPath, path, how], { env, stdio: ["ignore", "pipe", "inherit"] });
    const output = server.stdout.getReader();
    await output.read();
    try {
      const lines: string[] = [];
      const log = (line: string): void => {
        lines.push(line);
        server.kill("SIGKILL");
      };
      const isLate = how.endsWith("late");
      using claim = await Claim.make(TARGET, { log, ...(isLate && { afterMs: 100 }) });
      expect<unknown>(await claim.release().catch((error: Error) => error.message)).toBe(isWhole);
      const news = `process ${server.pid} has released the device and is still closing it`;
      expect(lines).toEqual(isLate ? [expect.stringContaining(news)] : []);
      // For a service: its manager must learn which process is the main one from then on.
      expect(claim.notifySocket).toBe("/run/nobody");
      if (how === "stays") await claim.done();
      const said = `handed on to ${process.pid}\n`;
      if (isWhole === true) expect(new TextDecoder().decode((await output.read()).value)).toBe(said);
    } finally {
      server.kill("SIGKILL");
    }
  },
  30_000,
);
