/**
 * Goal: a file system on a disk in a bucket keeps everything that was synced, whether the server is killed or replaced,
 * the store is unavailable, or another machine takes the disk. TSBUSE_AWAY: for how many seconds the store is
 * unavailable. TSBUSE_STORE=radosgw: uses a real object store, see scripts/bucket-nodes.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { fio, VERIFY } from "../support/fio.ts";
import { ObjectStoreServer } from "../support/object-store.ts";
import { S3Server } from "../support/s3-server.ts";
import { BINARY, Server } from "../support/server.ts";
import { run, sh, until } from "../support/shell.ts";
import { describeTransports, type TestNode } from "../support/transports.ts";

const AWAY_MS = Number(process.env["TSBUSE_AWAY"] ?? 1) * 1000;
const isReal = process.env["TSBUSE_STORE"] === "radosgw";
/** A real store is slow in an emulated machine. */
const START_MS = 400_000;
setDefaultTimeout(isReal ? 1_500_000 : 300_000);
const MOUNT = "/mnt/here";
const OTHER = "/mnt/there";

const stack = new AsyncDisposableStack();
let store: S3Server | ObjectStoreServer;

beforeAll(async () => {
  if (isReal) {
    store = stack.use(await ObjectStoreServer.start(START_MS));
    await store.makeBucket("disks");
  } else {
    store = stack.use(new S3Server());
  }
  // The servers inherit it.
  Object.assign(process.env, store.environment);
}, START_MS);

afterAll(() => stack.disposeAsync());

describeTransports(({ name }, disk, neighbour) => {
  test("ext4 outlives a kill, a handover, a store that is away, and a takeover", async () => {
    const address = `s3://disks/${name.replaceAll(" ", "-")}`;
    const device = ["bucket", address];
    const first = await Server.start(...device, disk.path, "--create", "256M", "--recover");
    await sh(`mkfs.ext4 -q ${disk.path}; mkdir -p ${MOUNT} ${OTHER}; mount ${disk.path} ${MOUNT}; dmesg -C`);
    const job = ["--bs=4k", "--size=512k", "--iodepth=16", "--fsync=32"];
    const verifying = fio(`${MOUNT}/fio`, ...job, ...VERIFY);
    const before = written(disk);
    await until("writes are answered", () => written(disk) > before + 40);
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

    // As on another machine: the current server does not know of the new one, and its next write fails.
    const third = await Server.start(...device, neighbour.path);
    await run(["dd", "if=/dev/zero", `of=${MOUNT}/late`, "bs=64k", "count=4", "conv=fsync"]);
    await sh(`mount ${neighbour.path} ${OTHER}; cmp /tmp/data ${OTHER}/data; ! test -s ${OTHER}/late`);
    await sh(`umount ${OTHER}; fsck.ext4 -fn ${neighbour.path}`);
    const snapshot = [BINARY, "bucket-snapshot", address, "whole"];
    expect(await run(["env", ...environment(), ...snapshot])).toMatchObject({ status: 0 });
    await sh(`wipefs -aq ${neighbour.path}`);
    expect(await third.stop()).toBe(0);
    await run(["umount", MOUNT]);
    expect(await latest.stop()).toBe(1);
    expect(await latest.errors).toMatch(/was taken over by process \d+/);
    await using shown = await Server.start(...device, neighbour.path, "--at", "whole");
    await sh(`mount -o ro ${neighbour.path} ${OTHER}; cmp /tmp/data ${OTHER}/data; umount ${OTHER}`);
    expect(await shown.stop()).toBe(0);
  });

  test("with a journal a flush needs no store, and outlives a kill and a handover", async () => {
    const journal = `/run/journal-${name.replaceAll(" ", "-")}`;
    const disks = `s3://disks/journaled-${name.replaceAll(" ", "-")}`;
    const device = ["bucket", disks, "--flush", "disk", "--journal", journal];
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
  });
});

/** The environment as words for env(1). */
function environment(): string[] {
  return Object.entries(store.environment).map((entry) => entry.join("="));
}

/** The number of completed writes. */
function written(node: TestNode): number {
  return Number(node.attribute("stat").split(/\s+/)[4]);
}
