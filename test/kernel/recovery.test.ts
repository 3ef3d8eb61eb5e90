/**
 * Goal: a device that was attached with --recover outlives its server on either driver, whenever that is killed.
 * TSBUSE_KILLS sets the number of kills, see scripts/kills.
 */
import { afterEach, describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { close } from "../../src/libc/file.ts";
import { NbdFamily } from "../../src/nbd/node/netlink.ts";
import { withKernelSockets } from "../../src/nbd/node/sockets.ts";
import { NBD_FLAG_HAS_FLAGS } from "../../src/uapi/nbd.ts";
import { fioWithin, VERIFY } from "../support/fio.ts";
import { chooseSeed, Random } from "../support/random.ts";
import { BINARY, endServers, refusal, Server } from "../support/server.ts";
import { run, sh, until } from "../support/shell.ts";
import { firstWrong } from "../support/synced-blocks.ts";
import { TestNode, TRANSPORTS } from "../support/transports.ts";

const MIB = 2 ** 20;
const KILLS = Number(process.env["TSBUSE_KILLS"] ?? 10);
const LIMIT_MS = 120_000 + KILLS * 20_000;
/** The maximum time between kills, in milliseconds. */
const PAUSE_MS = 1500;
const FILE = "/mnt/recovery.img";
const MOUNT = "/mnt/fs";
const NBD = "/dev/nbd0";

interface Listed {
  readonly node: string;
  readonly pid: number | null;
  readonly waiting: boolean;
  readonly identity: string | null;
}

async function listed(node: string): Promise<Listed | undefined> {
  const all: Listed[] = JSON.parse((await run([BINARY, "list", "--json"])).stdout);
  return all.find((one) => one.node === node);
}

afterEach(async () => {
  await sh(`umount ${MOUNT} 2>/dev/null || true`);
  await endServers();
  for (const { path } of TRANSPORTS.map((transport) => new TestNode(transport, 0)))
    if ((await listed(path)) !== undefined) await run([BINARY, "disconnect", path, "--force"]);
  await sh(`rm -rf ${FILE} /mnt/stop ${MOUNT}`);
});

describe.each(TRANSPORTS)("$name", (transport) => {
  const disk = new TestNode(transport, 0);
  const { path: node } = disk;

  test(
    `killed ${KILLS} times under ext4: no error, no mismatch, no synced byte lost`,
    async () => {
      const random = new Random(chooseSeed(`kills of ${transport.name}`));
      let server = await Server.start("loop", FILE, node, "--create", "128M", "--recover");
      await sh(`mkfs.ext4 -q ${node}; mkdir -p ${MOUNT}; mount ${node} ${MOUNT}; dmesg -C`);
      const program = join(import.meta.dir, "../support/fsync-writer.ts");
      const writing = run([process.execPath, program, `${MOUNT}/synced`, "/mnt/stop"], 3_600_000);
      const load = { isOver: false, runs: 0 };
      const verify = async (): Promise<void> => {
        const job = ["--bs=4k", "--size=8M", "--iodepth=16", "--fsync=32"];
        // One run may last for all the kills, because a server that lives for a second does little.
        for (; !load.isOver; load.runs += 1)
          expect(await fioWithin(LIMIT_MS, `${MOUNT}/fio`, ...job, ...VERIFY)).toMatchObject({
            errors: 0,
            messages: "",
          });
      };
      const verifying = verify();
      for (let kill = 0; kill < KILLS; kill += 1) {
        await Bun.sleep(random.below(PAUSE_MS));
        // A server that is told to end while its device is in use also leaves that to the next one.
        const [signal, status] = kill % 3 === 2 ? (["SIGTERM", 0] as const) : (["SIGKILL", 137] as const);
        expect(await server.stop(signal)).toBe(status);
        server = await Server.start("recover", node, "loop", FILE);
      }
      load.isOver = true;
      await verifying;
      await sh("touch /mnt/stop");
      const { synced, longestMs } = JSON.parse((await writing).stdout);
      console.log(
        `${transport.name}: ${KILLS} kills, ${load.runs} runs of fio, the slowest of ${synced} writes took ${longestMs | 0} ms`,
      );
      await sh(`umount ${MOUNT}; fsck.ext4 -fn ${node}; mount ${node} ${MOUNT}`);
      expect(firstWrong(readFileSync(`${MOUNT}/synced`), synced)).toBeUndefined();
      await sh(`umount ${MOUNT}`);
      expect(await sh("dmesg")).not.toMatch(/I\/O error|EXT4-fs error/);
      expect(await server.stop()).toBe(0);
      expect(disk.size).toBe(0);
    },
    LIMIT_MS,
  );
});

describe("nbd", () => {
  const COMMAND = ["loop", FILE, NBD, "--recover"] as const;

  /** Starts a server and kills it. */
  async function leave(): Promise<void> {
    const server = await Server.start(...COMMAND, "--create", "4M");
    await server.stop("SIGKILL");
  }

  test("the same command line makes the node, takes it over, and looks for it", async () => {
    await leave();
    for (const target of [NBD, "nbd"]) {
      expect(await listed(NBD)).toMatchObject({ pid: null, waiting: true });
      const reading = sh(`dd if=${NBD} bs=4k count=1 iflag=direct status=none | wc -c`);
      const server = await Server.start("loop", FILE, target, "--recover");
      expect(server.path).toBe(NBD);
      expect(await reading).toBe("4096");
      expect(await listed(NBD)).toMatchObject({ pid: server.pid, waiting: false });
      expect(await refusal("recover", NBD, "deadbeef", "4M")).toMatch(
        new RegExp(`^tsbuse: ${NBD} is served by process ${server.pid}, `),
      );
      await server.stop("SIGKILL");
    }
    const server = await Server.start(...COMMAND);
    expect(await server.stop()).toBe(0);
    expect(await listed(NBD)).toBeUndefined();
  });

  test("what is not to be taken over is not, and goes on waiting", async () => {
    expect(await refusal("recover", NBD, "deadbeef", "1M")).toContain(`${NBD} is not attached`);
    await leave();
    await sh("truncate -s 4M /mnt/other.img");
    const waits = `${NBD} waits for its server`;
    // A command and its message.
    const refused: [string[], string][] = [
      [["loop", "/mnt/other.img", NBD, "--recover"], `${NBD} is of loop:`],
      [["recover", NBD, "loop", "/mnt/other.img"], "give the one it was made for"],
      [["recover", NBD, "loop", FILE, "--block-size", "4096"], "give the one it was made for"],
      [["recover", NBD, "loop", FILE, "--attach", "ioctl"], "is recovered by netlink alone"],
      [["ramdisk", "4M", NBD], waits],
      [["loop", FILE, NBD], waits],
    ];
    for (const [words, message] of refused) {
      expect(await refusal(...words)).toContain(message);
      expect(await listed(NBD)).toMatchObject({ pid: null, waiting: true });
    }
    expect((await run([BINARY, "disconnect", NBD])).status).toBe(0);
    expect(await refusal("loop", FILE, NBD, "--recover", "--timeout", "5")).toContain("leave out --timeout");
  });

  test("a node that waits can be disconnected under its users, which get errors", async () => {
    await leave();
    const dd = ["dd", `if=${NBD}`, "of=/dev/null", "bs=4k", "count=1", "iflag=direct"];
    const reading = Bun.spawn(dd, { stdio: ["ignore", "ignore", "ignore"] });
    await until("it waits for its read", () =>
      readFileSync(`/proc/${reading.pid}/stat`, "utf8").includes(") D "),
    );
    expect(await run([BINARY, "disconnect", NBD])).toEqual({ status: 0, stdout: "", stderr: "" });
    expect(await reading.exited).toBe(1);
    await until("it is free", async () => (await listed(NBD)) === undefined);
  });

  test("a device that never answers holds up nothing but its readers", async () => {
    const module = "/mnt/deaf.ts";
    writeFileSync(
      module,
      'export default { size: 2 ** 20, identity: "deaf", read: () => new Promise(() => {}) };',
    );
    // Reads as soon as the node has a size, as udev does.
    const script = `until [ "$(cat /sys/block/nbd0/size)" -gt 0 ]; do :; done; exec dd if=${NBD} count=8 iflag=direct`;
    const reading = Bun.spawn(["sh", "-c", script], { stdio: ["ignore", "ignore", "ignore"] });
    const server = Bun.spawn([BINARY, "run", module, NBD, "--recover"], {
      stdio: ["ignore", "ignore", "ignore"],
    });
    await until(
      "a read is in flight",
      async () => /[1-9]/.test(await sh("cat /sys/block/nbd0/inflight")),
      60_000,
    );
    // The kernel blocks reading the attributes of a queue while it waits for that.
    const attribute = ["timeout", "20", "cat", "/sys/block/nbd0/queue/io_timeout"];
    expect(await run(attribute)).toEqual({ status: 0, stdout: "1000\n", stderr: "" });
    server.kill("SIGKILL");
    await until("the server has ended", () => server.signalCode === "SIGKILL");
    expect(await run([BINARY, "disconnect", NBD, "--force"])).toEqual({ status: 0, stdout: "", stderr: "" });
    // It ends with an error, or at the end of the disk, which is empty now.
    await reading.exited;
  });

  test("a node whose first server was killed before it told the size has it from the next one", async () => {
    const first = await Server.start(...COMMAND, "--create", "4M");
    const backend = readFileSync("/sys/block/nbd0/backend", "utf8").trim();
    await first.stop();
    using family = new NbdFamily();
    const shape = {
      index: 0,
      size: 0,
      blockSize: 512,
      flags: NBD_FLAG_HAS_FLAGS,
      timeout: 0,
      deadTimeout: 100,
    };
    const { sockets } = withKernelSockets(1, (ends) => family.connect({ ...shape, backend }, ends));
    for (const socket of sockets) close(socket);
    const next = await Server.start(...COMMAND);
    expect(await sh(`blockdev --getsize64 ${NBD}; cat /sys/block/nbd0/queue/io_timeout`)).toBe(
      `${4 * MIB}\n1000`,
    );
    await next.stop();
  });

  test("a node of somebody else's is neither taken over nor disconnected", async () => {
    const server = await Server.start("ramdisk", 4 * MIB + "", "unix:/run/foreign.sock");
    await sh(`nbd-client -unix /run/foreign.sock ${NBD} >/dev/null`);
    await server.stop("SIGKILL");
    for (const words of [
      ["ramdisk", "1M", NBD],
      ["recover", NBD, "deadbeef", "1M"],
    ])
      expect(await refusal(...words)).toContain("cannot be seen from here");
    const other = await Server.start("ramdisk", "1M", "nbd");
    expect(other.path).not.toBe(NBD);
    expect(await listed(NBD)).toMatchObject({ pid: null });
    await sh(`nbd-client -d ${NBD} >/dev/null`);
  });
});
