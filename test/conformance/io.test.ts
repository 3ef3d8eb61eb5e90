/** Goal: qemu-io and fio write patterns, read them back, and see errors for what they are. */
import { describe, expect, test } from "bun:test";
import { Deadbeef } from "../../devices/deadbeef.ts";
import { Ramdisk } from "../../devices/ramdisk.ts";
import { ErrnoError } from "../../src/errors.ts";
import { AsyncStore } from "../support/async-devices.ts";
import { Random } from "../support/random.ts";
import type { Shadow } from "../support/shadow.ts";
import { ServedDevice, STORES, TARGETS } from "../support/served.ts";
import { type Finished, run, sh } from "../support/shell.ts";

const MIB = 2 ** 20;

/** Runs fio's nbd engine on the export. */
async function fioVerify(served: ServedDevice, options: string): Promise<void> {
  const job = served.join("verify.fio");
  await Bun.write(
    job,
    `[verify]\nioengine=nbd\nuri=${served.uri}\nrw=randwrite\nverify=crc32c\n` +
      `verify_fatal=1\nverify_state_save=0\n${options}\n`,
  );
  await sh(`cd ${served.directory.path} && fio --output=/dev/null ${job}`, 60_000);
}

/** Fails at two of its blocks. */
function failing(device: Shadow): Shadow {
  device.hold = (offset) => {
    if (offset === 4096) throw new ErrnoError("ENOSPC");
    if (offset === 8192) throw new Error("broken");
    return undefined;
  };
  return device;
}

function qemuIo(served: ServedDevice, commands: readonly string[]): Promise<Finished> {
  return run(["qemu-io", "-f", "raw", ...commands.flatMap((each) => ["-c", each]), served.uri]);
}

describe.each(TARGETS)("on %s", (_, target) => {
  describe.each(STORES)("%s", (__, make) => {
    test("qemu-io: patterns, zeroes, discards and flushes, at every alignment", async () => {
      await using served = await ServedDevice.start(target, make(16 * MIB));
      const commands = [
        "write -P 0x11 0 1M",
        "write -P 0x22 512k 512",
        "write -f -P 0x33 3584 1k",
        "aio_write -P 0x44 4M 4M",
        "aio_write -P 0x55 8M 4M",
        "aio_flush",
        "write -z 5M 1M",
        "write -z -u 9M 64k",
        "discard 10M 512",
        "flush",
        "read -P 0x11 0 3584",
        "read -P 0x33 3584 1k",
        "read -P 0x22 512k 512",
        "read -P 0x11 524800 512",
        "read -P 0x44 4M 1M",
        "read -P 0 5M 1M",
        "read -P 0x44 6M 2M",
        "read -P 0 9M 64k",
        "read -P 0 10M 512",
        "read -P 0x55 11M 1M",
      ];
      const end = await qemuIo(served, commands);
      expect(end.stdout + end.stderr).not.toMatch(/fail|error/i);
      expect(end.status).toBe(0);
      expect(served.lines).toEqual([]);
    });

    test("qemu-io: a device's errno comes through, and the connection goes on", async () => {
      await using served = await ServedDevice.start(target, failing(make(MIB)));
      const commands = ["write 4096 512", "read 8192 512", "write -P 1 0 512", "read -P 1 0 512"];
      const end = await qemuIo(served, commands);
      expect(end.stdout).toContain("write failed: No space left on device");
      expect(end.stdout).toContain("read failed: Input/output error");
      expect(end.stdout).toContain("wrote 512/512 bytes at offset 0");
      expect(served.lines.join("\n")).toContain("broken");
    });
  });

  test("qemu-io: a device without write cannot be opened for writing, but read", async () => {
    await using served = await ServedDevice.start(target, new Deadbeef(MIB));
    const write = await run(["qemu-io", "-f", "raw", "-c", "write 0 512", served.uri]);
    expect(write.stderr + write.stdout).toMatch(/read.?only|permission/i);
    await sh(`qemu-io -r -f raw -c 'read -v 0 512' '${served.uri}' | grep -q 'de ad be ef'`);
  });

  test("fio's nbd engine verifies at depth 32", async () => {
    await using served = await ServedDevice.start(target, new Ramdisk(32 * MIB));
    await fioVerify(served, "size=32m\nbsrange=512-128k\nbs_unaligned=0\niodepth=32\nrandseed=1");
  });
  test("fio's nbd engine verifies a device whose requests settle out of order", async () => {
    const device = new AsyncStore(8 * MIB);
    const random = new Random(4);
    device.hold = () => (random.oneIn(3) ? Bun.sleep(random.below(4)) : undefined);
    await using served = await ServedDevice.start(target, device);
    await fioVerify(served, "size=8m\nbs=4k\niodepth=64\nrandseed=2\nfsync=32");
    expect(device.inFlightMax).toBeGreaterThan(16);
  });
});
