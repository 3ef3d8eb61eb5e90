/**
 * Goal: a file system on a disk in a bucket keeps all that it synced, whether the server is killed or replaced, the
 * store is away, or another machine takes the disk. TSBUSE_AWAY: for how many seconds the store is away.
 */
import { expect, test } from "bun:test";
import { fio, VERIFY } from "../support/fio.ts";
import { S3Server } from "../support/s3-server.ts";
import { Server } from "../support/server.ts";
import { run, sh, until } from "../support/shell.ts";
import { describeTransports } from "../support/transports.ts";

const AWAY_MS = Number(process.env["TSBUSE_AWAY"] ?? 1) * 1000;
const MOUNT = "/mnt/here";
const OTHER = "/mnt/there";

describeTransports(({ name }, disk, neighbour) => {
  test("ext4 outlives a kill, a handover, a store that is away, and a takeover", async () => {
    using store = new S3Server();
    // The servers inherit it.
    Object.assign(process.env, store.environment);
    const device = ["bucket", `s3://disks/${name.replaceAll(" ", "-")}`];
    const first = await Server.start(...device, disk.path, "--create", "256M", "--recover");
    await sh(`mkfs.ext4 -q ${disk.path}; mkdir -p ${MOUNT} ${OTHER}; mount ${disk.path} ${MOUNT}; dmesg -C`);
    const job = ["--bs=4k", "--size=512k", "--iodepth=16", "--fsync=32"];
    const verifying = fio(`${MOUNT}/fio`, ...job, ...VERIFY);
    const before = store.objects.size;
    await until("the writes are in the bucket", () => store.objects.size > before + 2);
    expect(await first.stop("SIGKILL")).toBe(137);
    const second = await Server.start("recover", disk.path, ...device);
    expect(await verifying).toMatchObject({ errors: 0, messages: "" });
    expect(await sh("dmesg")).not.toMatch(/I\/O error|EXT4-fs error/);

    const loaded = fio(`${MOUNT}/fio`, ...job, ...VERIFY);
    const latest = await Server.start("handover", disk.path, ...device);
    expect(await second.ended()).toBe(0);
    expect(await loaded).toMatchObject({ errors: 0, messages: "" });
    expect(await sh("dmesg")).not.toMatch(/I\/O error|EXT4-fs error/);

    store.pause();
    await sh(`head -c 1000000 /dev/urandom > /tmp/data`);
    const writing = run(["dd", "if=/tmp/data", `of=${MOUNT}/data`, "bs=64k", "conv=fsync"], 240_000);
    const isDone = writing.then(() => true);
    expect(await Promise.race([isDone, Bun.sleep(AWAY_MS).then(() => false)])).toBe(false);
    store.resume();
    expect(await writing).toMatchObject({ status: 0 });

    // As on another machine: the one that has it knows nothing of that, and its next write fails.
    const third = await Server.start(...device, neighbour.path);
    await run(["dd", "if=/dev/zero", `of=${MOUNT}/late`, "bs=64k", "count=4", "conv=fsync"]);
    await sh(`mount ${neighbour.path} ${OTHER}; cmp /tmp/data ${OTHER}/data; ! test -s ${OTHER}/late`);
    await sh(`umount ${OTHER}; fsck.ext4 -fn ${neighbour.path}`);
    expect(await third.stop()).toBe(0);
    await run(["umount", MOUNT]);
    expect(await latest.stop()).toBe(1);
    expect(await latest.errors).toMatch(/was taken over by process \d+/);
  }, 300_000);

  test("with a journal a flush needs no store, and outlives a kill and a handover", async () => {
    using store = new S3Server();
    Object.assign(process.env, store.environment);
    const journal = `/run/journal-${name.replaceAll(" ", "-")}`;
    const device = ["bucket", "s3://disks/journaled", "--flush", "disk", "--journal", journal];
    const first = await Server.start(...device, disk.path, "--create", "64M", "--recover");
    const write = `dd if=/run/data of=${disk.path} bs=1M oflag=direct conv=fsync`;
    const check = (at: number): string =>
      `dd if=${disk.path} bs=1M skip=${at} count=1 iflag=direct | cmp - /run/data`;
    store.pause();
    await sh(`head -c 1M /dev/urandom >/run/data; ${write} seek=1`);
    expect(await first.stop("SIGKILL")).toBe(137);
    store.resume();
    const second = await Server.start("recover", disk.path, ...device);
    await sh(`${check(1)} && ${write} seek=2`);
    const third = await Server.start("handover", disk.path, ...device);
    expect(await second.ended()).toBe(0);
    await sh(`${check(1)} && ${check(2)}`);
    expect(await third.stop()).toBe(0);
  }, 120_000);
});
