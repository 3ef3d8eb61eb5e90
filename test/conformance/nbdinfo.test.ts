/** Goal: libnbd's nbdinfo sees the export as it is: its size, what it can do, and where its holes are. */
import { describe, expect, test } from "bun:test";
import { Deadbeef } from "../../devices/deadbeef.ts";
import { Loop } from "../../devices/loop.ts";
import { Ramdisk } from "../../devices/ramdisk.ts";
import { ServedDevice, TARGETS } from "../support/served.ts";
import { Shadow } from "../support/shadow.ts";
import { run, sh } from "../support/shell.ts";
import { TemporaryDirectory } from "../support/temporary.ts";

const MIB = 2 ** 20;

/** nbdinfo's rows of --map: offset, length, type, description. */
async function map(uri: string): Promise<unknown> {
  return JSON.parse(await sh(`nbdinfo --map --json '${uri}'`));
}

function data(offset: number, length: number): object {
  return { offset, length, type: 0, description: "data" };
}

function hole(offset: number, length: number): object {
  return { offset, length, type: 3, description: "hole,zero" };
}

describe.each(TARGETS)("on %s", (_, target) => {
  test("--json: a RAM disk", async () => {
    await using served = await ServedDevice.start(target, new Ramdisk(64 * MIB), {
      description: "of memory",
    });
    const info = JSON.parse(await sh(`nbdinfo --json '${served.uri}'`));
    expect(info.protocol).toBe("newstyle-fixed");
    expect(info.structured).toBe(true);
    expect(info.exports).toHaveLength(1);
    expect(info.exports[0]).toMatchObject({
      "export-name": "",
      description: "of memory",
      "export-size": 64 * MIB,
      contexts: ["base:allocation"],
      is_read_only: false,
      is_rotational: false,
      can_cache: false,
      can_df: true,
      can_flush: false,
      can_fua: false,
      can_multi_conn: true,
      can_trim: true,
      can_zero: true,
      block_size_minimum: 512,
      block_size_preferred: 4096,
      block_size_maximum: 32 * MIB,
    });
  });

  test("--json: a device that can only be read, with larger blocks", async () => {
    const device = new Deadbeef(1 * MIB);
    await using served = await ServedDevice.start(target, device, {
      blockSize: 4096,
      exportName: "dead beef",
    });
    const info = JSON.parse(await sh(`nbdinfo --json '${served.uri}'`));
    expect(info.exports[0]).toMatchObject({
      "export-name": "dead beef",
      contexts: [],
      is_read_only: true,
      can_trim: false,
      can_zero: false,
      block_size_minimum: 4096,
    });
  });

  test("--json: a device with flush has FUA", async () => {
    await using served = await ServedDevice.start(target, new Shadow(MIB));
    const info = JSON.parse(await sh(`nbdinfo --json '${served.uri}'`));
    expect(info.exports[0]).toMatchObject({ can_flush: true, can_fua: true, can_multi_conn: true });
  });

  test("--list names the export; the empty name is an alias; another does not exist", async () => {
    await using served = await ServedDevice.start(target, new Ramdisk(MIB), {
      exportName: "disk",
      description: "d",
    });
    const list = JSON.parse(await sh(`nbdinfo --list --json '${served.uri}'`));
    expect(list.exports).toMatchObject([{ "export-name": "disk", description: "d", "export-size": MIB }]);
    const other = (name: string): string => served.uri.replace("/disk", `/${name}`);
    expect(await sh(`nbdinfo --size '${other("")}'`)).toBe(String(MIB));
    const end = await run(["nbdinfo", "--size", other("nothing")]);
    expect(end.status).toBe(1);
    expect(end.stderr).toContain("nothing");
  });

  test("--map of a RAM disk follows writes, trims and zeroes", async () => {
    await using served = await ServedDevice.start(target, new Ramdisk(16 * MIB));
    expect(await map(served.uri)).toEqual([hole(0, 16 * MIB)]);
    await sh(
      `qemu-io -f raw -c 'write -P 1 1M 2M' -c 'write -P 1 8M 2M' -c 'write -P 1 14M 2M' '${served.uri}'`,
    );
    await sh(`qemu-io -f raw -c 'discard 8M 1M' -c 'write -z -u 9M 64k' '${served.uri}'`);
    const after = [hole(0, MIB), data(MIB, 2 * MIB), hole(3 * MIB, 6 * MIB + 65_536)];
    after.push(data(9 * MIB + 65_536, MIB - 65_536), hole(10 * MIB, 4 * MIB), data(14 * MIB, 2 * MIB));
    expect(await map(served.uri)).toEqual(after);
  });

  test("--map of a file shows its holes, at an offset into it too", async () => {
    using files = new TemporaryDirectory();
    const path = files.join("sparse.img");
    await sh(`truncate -s 8M ${path}
      dd if=/dev/urandom of=${path} bs=64k seek=16 count=16 conv=notrunc status=none`);
    {
      await using served = await ServedDevice.start(target, new Loop(path));
      expect(await map(served.uri)).toEqual([hole(0, MIB), data(MIB, MIB), hole(2 * MIB, 6 * MIB)]);
    }
    await using inner = await ServedDevice.start(target, new Loop(path, { offset: MIB / 2, readOnly: true }));
    expect(await map(inner.uri)).toEqual([
      hole(0, MIB / 2),
      data(MIB / 2, MIB),
      hole((3 * MIB) / 2, 6 * MIB),
    ]);
  });

  test("--map and copies in blocks that are larger than the device's own", async () => {
    using files = new TemporaryDirectory();
    const [path, back] = [files.join("sparse.img"), files.join("back.img")];
    // The device begins 512 bytes into the file's blocks.
    await sh(`truncate -s ${MIB + 512} ${path}
      dd if=/dev/urandom of=${path} bs=64k seek=4 count=1 conv=notrunc status=none`);
    const device = new Loop(path, { offset: 512 });
    await using served = await ServedDevice.start(target, device, { blockSize: 4096 });
    expect(await map(served.uri)).toEqual([
      hole(0, 4 * 65_536 - 4096),
      data(4 * 65_536 - 4096, 65_536 + 4096),
      hole(5 * 65_536, MIB - 5 * 65_536),
    ]);
    await sh(`nbdcopy '${served.uri}' ${back} && cmp --ignore-initial=512:0 ${path} ${back} && rm ${back}`);
    await sh(`qemu-img convert -f raw -O raw '${served.uri}' ${back}`);
    await sh(`cmp --ignore-initial=512:0 ${path} ${back}`);
  });
});
