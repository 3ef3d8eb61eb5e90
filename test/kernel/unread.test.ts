/** Goal: a file system works, and can be detached, whether or not anything reads its server's messages. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { writeFiles } from "../support/files.ts";
import { BINARY } from "../support/server.ts";
import { sh, until } from "../support/shell.ts";
import { TestNode, TRANSPORTS } from "../support/transports.ts";
import { UnreadPipe, UnreadSocket } from "../support/unread.ts";

const SOURCES = join(import.meta.dir, "../../src/nbd");
const DIRECTORY = "/run/unread";
const PID_FILE = join(DIRECTORY, "pid");
const SYSLOG = "/dev/log";
const PROMISING = `const bytes = new Uint8Array(2 ** 25);
export default {
  size: bytes.length,
  async read(target, offset) { await Bun.sleep(0); target.set(bytes.subarray(offset, offset + target.length)); },
  async write(source, offset) { await Bun.sleep(0); bytes.set(source, offset); },
  flush() {},
};`;
const RAMDISK = ["ramdisk", "32M"];

const pid = (): number => Number(readFileSync(PID_FILE, "utf8"));
const ready = (): Promise<void> => until("it is ready", () => existsSync(PID_FILE), 30_000);

describe.each(TRANSPORTS)("$name", (transport) => {
  const disk = new TestNode(transport, 0);
  let server: Bun.Subprocess | undefined;

  beforeEach(async () => {
    await sh(`mkdir -p ${DIRECTORY} /mnt/disk`);
  });

  afterEach(async () => {
    if (existsSync(PID_FILE)) process.kill(pid(), "SIGKILL");
    server?.kill("SIGKILL");
    server = undefined;
    await sh("umount /mnt/disk 2>/dev/null || true");
    await disk.untilFree();
    await sh(`rm -rf ${DIRECTORY} ${SYSLOG}`);
  });

  const command = (device: readonly string[], options: readonly string[]): string[] => [
    BINARY,
    ...device,
    disk.path,
    "--pid-file",
    PID_FILE,
    ...options,
  ];

  /** Makes more lines of `--verbose` than are kept for a reader. */
  const readMuch = (): Promise<string> =>
    sh(`dd if=${disk.path} of=/dev/null bs=512 count=2500 iflag=direct status=none`);

  async function holdsFileSystem(): Promise<void> {
    await sh(`mkfs.ext4 -q ${disk.path}; mount ${disk.path} /mnt/disk; cp -r ${SOURCES} /mnt/disk/src; sync`);
    await sh(`echo 3 >/proc/sys/vm/drop_caches; diff -r ${SOURCES} /mnt/disk/src; umount /mnt/disk`);
  }

  test.each([
    ["a thread that waits for requests alone", RAMDISK, ["--verbose"]],
    ["the event loop", ["run", join(DIRECTORY, "disk.ts")], ["--verbose"]],
    ["a layer", RAMDISK, ["--layer", "log"]],
    // Each signal makes the main thread write a message.
    ["threads of queues", RAMDISK, ["--queues", "2"]],
  ])(
    "a full pipe as stderr: %s",
    async (_, device, options) => {
      writeFiles(DIRECTORY, { "disk.ts": PROMISING });
      using pipe = new UnreadPipe(join(DIRECTORY, "pipe"));
      server = Bun.spawn(command(device, options), { stdin: "ignore", stdout: "ignore", stderr: pipe.fd });
      await ready();
      for (const signal of ["SIGTTIN", "SIGTTOU"] as const) server.kill(signal);
      await holdsFileSystem();
      // The lines kept for the reader, and the number of lost ones.
      if (options.includes("--verbose")) await readMuch();
      let text = "";
      await until("it is read", () => (text += pipe.read()).includes("SIGTTOU ignored"));
      server.kill("SIGTTOU");
      if (options.includes("--verbose"))
        await until("it says what was lost", () =>
          /^tsbuse: \d+ messages were lost here: .*$/m.test((text += pipe.read())),
        );
      server.kill("SIGTERM");
      expect(await server.exited).toBe(0);
    },
    120_000,
  );

  test("a syslog that has stopped", async () => {
    // systemd's value: the kept lines then go out in a few turns.
    await sh("echo 512 >/proc/sys/net/unix/max_dgram_qlen");
    using syslog = new UnreadSocket(SYSLOG);
    await sh(command(RAMDISK, ["--daemon", "--verbose"]).join(" "));
    const daemon = pid();
    await holdsFileSystem();
    await readMuch();
    await until("it says what was lost", () =>
      syslog.read().some((line) => /^<28>tsbuse\[\d+\]: \d+ messages were lost here/.test(line)),
    );
    process.kill(daemon, "SIGTERM");
    await until("it has ended", () => !existsSync(`/proc/${daemon}`));
    rmSync(SYSLOG);
  }, 300_000);
});
