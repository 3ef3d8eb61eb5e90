/**
 * Goal: a device that returns promises holds a file system, with many requests in flight, while the program that
 * serves it continues with other things. This process itself serves the device, by the library's `attach`.
 */
import { afterEach, expect, test } from "bun:test";
import { join } from "node:path";
import { attach, type AttachOptions, type Attachment } from "tsbuse";
import { AsyncStore } from "../support/async-devices.ts";
import { fio, VERIFY } from "../support/fio.ts";
import { Random } from "../support/random.ts";
import { BINARY } from "../support/server.ts";
import { run, sh, until } from "../support/shell.ts";
import { describeTransports } from "../support/transports.ts";

const MIB = 2 ** 20;
/** An existing tree of files and directories. */
const TREE = join(import.meta.dir, "../../src/nbd");

describeTransports((_, disk) => {
  const { path: node } = disk;

  let attachment: Attachment | undefined;

  afterEach(async () => {
    await sh("umount /mnt/async 2>/dev/null || true");
    await attachment?.close().catch(() => undefined);
    attachment = undefined;
  });

  async function attached(device: AsyncStore, options: AttachOptions = {}): Promise<void> {
    attachment = await attach(device, node, options);
  }

  /** Reads 4 KiB at a multiple of that, bypassing the page cache. */
  function readBlock(block: number): Promise<{ readonly status: number }> {
    const where = [`if=${node}`, "of=/dev/null", "bs=4k", "count=1", `skip=${block}`];
    return run(["dd", ...where, "iflag=direct", "status=none"]);
  }

  test("fio verifies while requests take their time and settle out of order", async () => {
    const device = new AsyncStore(32 * MIB);
    const random = new Random(5);
    device.hold = () => (random.oneIn(4) ? Bun.sleep(random.below(5)) : undefined);
    await attached(device);
    const sizes = ["--bsrange=512-64k", "--bs_unaligned=0", "--size=32M"];
    const report = await fio(node, ...sizes, "--iodepth=64", "--randseed=5", ...VERIFY);
    expect(report.errors).toBe(0);
    expect(device.inFlightMax).toBeGreaterThan(8);
    expect(attachment?.requests).toBeGreaterThan(1000);
  }, 300_000);

  test("ext4: make, mount, copy, compare from the device, unmount, check", async () => {
    const device = new AsyncStore(128 * MIB);
    const random = new Random(6);
    device.hold = () => (random.oneIn(8) ? Bun.sleep(1) : undefined);
    await attached(device);
    await sh(`mkfs.ext4 -q ${node} && mkdir -p /mnt/async && mount ${node} /mnt/async`);
    await sh(
      `dd if=/dev/urandom of=/mnt/async/large bs=1M count=32 status=none && cp -a ${TREE} /mnt/async/tree`,
      120_000,
    );
    await sh("cp /mnt/async/large /run/large");
    await sh(`umount /mnt/async && echo 3 > /proc/sys/vm/drop_caches && mount ${node} /mnt/async`);
    await sh(`cmp /mnt/async/large /run/large; rm /run/large; diff -r ${TREE} /mnt/async/tree`);
    await sh(`umount /mnt/async && fsck.ext4 -fn ${node}`);
  }, 300_000);

  test("a slow request holds up nobody, and timers keep running", async () => {
    const device = new AsyncStore(16 * MIB);
    const gate = Promise.withResolvers<void>();
    await attached(device);
    device.hold = (offset) => (offset === 8 * MIB ? gate.promise : undefined);
    let ticks = 0;
    const timer = setInterval(() => (ticks += 1), 10);
    const slow = sh(`dd if=${node} of=/dev/null bs=4k count=1 skip=2048 iflag=direct status=none; echo done`);
    let slowDone = false;
    void slow.then(() => (slowDone = true));
    await until("the slow request is with the device", () => device.inFlight === 1);
    await sh(`dd if=/dev/urandom of=${node} bs=4k count=512 oflag=direct status=none`);
    await sh(`dd if=${node} of=/dev/null bs=4k count=512 iflag=direct status=none`);
    expect(slowDone).toBe(false);
    expect(device.inFlight).toBe(1);
    gate.resolve();
    expect(await slow).toBe("done");
    clearInterval(timer);
    expect(ticks).toBeGreaterThan(5);
  });

  test("a rejected promise is an error of that request, and one that never settles is after its time", async () => {
    const lines: string[] = [];
    const device = new AsyncStore(16 * MIB);
    await attached(device, { requestTimeoutMs: 300, log: (line) => lines.push(line) });
    const gate = Promise.withResolvers<void>();
    device.hold = (offset) => {
      if (offset === 4 * MIB) return Promise.reject(new Error("a bad sector"));
      return offset === 8 * MIB ? gate.promise : undefined;
    };
    expect((await readBlock(1024)).status).toBe(1);
    expect((await readBlock(2048)).status).toBe(1);
    expect((await readBlock(0)).status).toBe(0);
    expect(lines.join("\n")).toContain("read failed (EIO): a bad sector");
    expect(lines.join("\n")).toContain(
      "read offset 8388608 length 4096 took more than 0.3 s: answered with EIO",
    );
    gate.resolve();
  });

  test("close() detaches, closes the device, and the node is free", async () => {
    const device = new AsyncStore(4 * MIB);
    {
      await using used = await attach(device, node);
      expect(used.path).toBe(node);
      expect(disk.size).toBe(4 * MIB);
      await sh(`dd if=/dev/urandom of=${node} bs=64k count=16 status=none`);
    }
    // Detaching wrote back the page cache.
    expect(device.bytes.subarray(0, MIB).some((byte) => byte !== 0)).toBe(true);
    expect(device.closed).toBe(true);
    expect(disk.isAttached).toBe(false);
  });

  test("a node that somebody disconnects settles `done`", async () => {
    const device = new AsyncStore(4 * MIB);
    const used = await attach(device, node);
    expect(await run([BINARY, "disconnect", node])).toEqual({ status: 0, stdout: "", stderr: "" });
    await used.done;
    expect(device.closed).toBe(true);
  });
});
