/** Goal: nbdcopy and qemu-img bring every byte in and out, sparse where it is sparse, from one export to another. */
import { describe, expect, test } from "bun:test";
import { Loop } from "../../devices/loop.ts";
import { Ramdisk } from "../../devices/ramdisk.ts";
import type { BlockDevice } from "../../src/device.ts";
import { AsyncStore } from "../support/async-devices.ts";
import { Random } from "../support/random.ts";
import { ServedDevice, TARGETS } from "../support/served.ts";
import { sh } from "../support/shell.ts";

const MIB = 2 ** 20;
const SIZE = 32 * MIB;

/** An image: random data, a hole, zeroes that are written, data. */
async function makeImage(path: string): Promise<void> {
  await sh(`truncate -s 32M ${path}
    dd if=/dev/urandom of=${path} bs=1M count=5 conv=notrunc status=none
    dd if=/dev/zero of=${path} bs=1M seek=12 count=2 conv=notrunc status=none
    dd if=/dev/urandom of=${path} bs=1M seek=30 count=2 conv=notrunc status=none`);
}

/** A device whose every request takes its own time; where that cannot be, one that is plain. */
function restless(): BlockDevice {
  const device = new AsyncStore(SIZE);
  const random = new Random(3);
  device.hold = () => (random.oneIn(3) ? Bun.sleep(random.below(4)) : undefined);
  return device;
}

const DEVICES: readonly (readonly [string, (path: string) => BlockDevice])[] = [
  ["a RAM disk", () => new Ramdisk(SIZE)],
  ["a file", (path) => new Loop(path, { create: SIZE })],
  ["a device of methods alone", restless],
];

describe.each(TARGETS)("on %s", (_, target) => {
  describe.each(DEVICES)("%s", (__, make) => {
    /** The device's own files lie beside the socket's. */
    async function start(): Promise<ServedDevice> {
      const path = `/tmp/tsbuse-copy-${process.pid}-${Bun.nanoseconds()}.img`;
      const served = await ServedDevice.start(target, make(path));
      await sh(`rm -f ${path}`);
      return served;
    }

    test("nbdcopy in, out, and to another export", async () => {
      await using one = await start();
      await using other = await start();
      const [image, back] = [one.join("image"), one.join("back")];
      await makeImage(image);
      await sh(`nbdcopy ${image} '${one.uri}' && nbdcopy '${one.uri}' ${back} && cmp ${image} ${back}`);
      await sh(`nbdcopy '${one.uri}' '${other.uri}' && rm ${back}`);
      await sh(`nbdcopy --requests=128 --connections=8 '${other.uri}' ${back} && cmp ${image} ${back}`);
    });

    test("nbdcopy with requests of 64 KiB and of 32 MiB", async () => {
      await using served = await start();
      const [image, back] = [served.join("image"), served.join("back")];
      await makeImage(image);
      for (const bytes of [65_536, 32 * MIB]) {
        const options = `--request-size=${bytes} --synchronous`;
        await sh(`nbdcopy ${options} ${image} '${served.uri}' && nbdcopy ${options} '${served.uri}' ${back}`);
        await sh(`cmp ${image} ${back} && rm ${back}`);
      }
    });

    test("qemu-img convert in and out, compare, and a format of its own on top", async () => {
      await using served = await start();
      const [image, back] = [served.join("image"), served.join("back.qcow2")];
      await makeImage(image);
      await sh(`qemu-img convert -n -f raw -O raw ${image} '${served.uri}'`);
      await sh(`qemu-img compare -f raw -F raw ${image} '${served.uri}'`);
      await sh(`qemu-img convert -f raw -O qcow2 -W '${served.uri}' ${back}`);
      await sh(`qemu-img compare -f raw -F qcow2 ${image} ${back}`);
      await sh(`qemu-img create -q -f qcow2 '${served.uri}' 8M && qemu-img check -q '${served.uri}'`);
    });
  });

  test("what is sparse stays sparse: qemu-img map, and a copy that takes no more than the data", async () => {
    await using served = await ServedDevice.start(target, new Ramdisk(SIZE));
    const [image, back] = [served.join("image"), served.join("back")];
    await makeImage(image);
    await sh(`nbdcopy ${image} '${served.uri}'`);
    const extents: { start: number; length: number; data: boolean; zero: boolean }[] = JSON.parse(
      await sh(`qemu-img map --output=json -f raw '${served.uri}'`),
    );
    const bytes = extents.filter((extent) => extent.data).reduce((sum, extent) => sum + extent.length, 0);
    expect(bytes).toBe(7 * MIB);
    expect(extents.at(-1)).toMatchObject({ start: 30 * MIB, length: 2 * MIB, data: true, zero: false });
    await sh(`nbdcopy '${served.uri}' ${back}`);
    expect(Number(await sh(`stat -c %b ${back}`)) * 512).toBeLessThanOrEqual(8 * MIB);
  });
});
