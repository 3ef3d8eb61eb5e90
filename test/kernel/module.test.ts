/**
 * Goal: a module anywhere, with nothing installed, holds a file system, and can be saved repeatedly while it is in use.
 * The binary loads it, and the library that it imports is the binary's own.
 */
import { beforeEach, expect, test } from "bun:test";
import { copyFileSync, existsSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { writeFiles } from "../support/files.ts";
import { fio, VERIFY } from "../support/fio.ts";
import { BINARY, Server } from "../support/server.ts";
import { run, sh, until } from "../support/shell.ts";
import { describeTransports } from "../support/transports.ts";

const ROOT = join(import.meta.dir, "../..");
/** An existing tree of files and directories. */
const TREE = join(ROOT, "src/nbd");
const DIRECTORY = "/mnt/module";

const RELOADS = 8;

const inDirectory = (name: string): string => join(DIRECTORY, name);

/**
 * A disk in memory that answers late and out of order. It reports its takeover by a file, because a question from the
 * test must not delay its requests.
 */
const generation = (number: number): string => `
import { writeFileSync } from "node:fs";
import type { BlockDevice } from "tsbuse";
import { delayMs } from "./delay.ts";

class Disk implements BlockDevice {
  readonly size = 2 ** 25;
  bytes = new Uint8Array(this.size);
  async read(target: Uint8Array, offset: number): Promise<void> {
    await Bun.sleep(delayMs());
    target.set(this.bytes.subarray(offset, offset + target.length));
  }
  async write(source: Uint8Array, offset: number): Promise<void> {
    await Bun.sleep(delayMs());
    this.bytes.set(source, offset);
  }
  flush(): void {}
  takeOver(previous: Disk): void {
    this.bytes = previous.bytes;
    writeFileSync(import.meta.dir + "/generation", "${number}");
  }
  close(): void {
    this.bytes = new Uint8Array();
  }
}
export default new Disk();
`;

/** Reads return this byte. The first read hangs half way while the file `hang` exists, and reports that by a file. */
const hanging = (byte: number): string => `
import { existsSync, writeFileSync } from "node:fs";
const beside = (name: string) => import.meta.dir + "/" + name;
export default {
  size: 2 ** 20,
  async read(target: Uint8Array, offset: number) {
    if (${byte} === 1 && offset === 2 ** 19 && existsSync(beside("hang"))) {
      writeFileSync(beside("hangs"), "");
      while (existsSync(beside("hang"))) await Bun.sleep(5);
    }
    target.fill(${byte});
  },
};`;

/** Saves as an editor does: a new file replaces the old one. */
function save(name: string, text: string): void {
  writeFileSync(inDirectory("saved"), text);
  renameSync(inDirectory("saved"), inDirectory(name));
}

/** Saves the module as this generation and waits until it has taken over. */
async function reload(number: number): Promise<void> {
  save("disk.ts", generation(number));
  const file = inDirectory("generation");
  await until(
    `generation ${number} takes over`,
    () => existsSync(file) && readFileSync(file, "utf8") === String(number),
    30_000,
  );
}

describeTransports((_, disk) => {
  const { path: node } = disk;

  beforeEach(async () => {
    await sh(`mkdir -p ${DIRECTORY} /mnt/disk`);
  });

  /** Serves generation 0. Its requests take as long as the expression says. */
  function startWatched(delayMs: string): Promise<Server> {
    const delay = `export const delayMs = (): number => ${delayMs};`;
    writeFiles(DIRECTORY, { "disk.ts": generation(0), "delay.ts": delay });
    return Server.start("run", inDirectory("disk.ts"), node, "--watch");
  }

  /** Makes a file system, fills it, and compares its contents, also after mounting it again. */
  async function holdsFileSystem(): Promise<void> {
    await sh(`mkfs.ext4 -q ${node}; mount ${node} /mnt/disk`);
    await sh(`cp -r ${TREE} /mnt/disk/tree; sync; umount /mnt/disk; blockdev --flushbufs ${node}`);
    await sh(
      `mount ${node} /mnt/disk; diff -r ${TREE} /mnt/disk/tree; umount /mnt/disk; fsck.ext4 -fn ${node}`,
    );
  }

  test("a database as a disk: ext4 on it, and on it again after a restart", async () => {
    copyFileSync(join(ROOT, "devices/sqlite.ts"), inDirectory("sqlite.ts"));
    const words = ["run", inDirectory("sqlite.ts"), node, "--", `file=${inDirectory("disk.db")}`, "size=64M"];
    const server = await Server.start(...words);
    expect(server.path).toBe(node);
    await holdsFileSystem();
    expect(await server.stop()).toBe(0);
    expect(await server.errors).toBe("");
    const again = await Server.start(...words);
    await sh(`mount ${node} /mnt/disk; diff -r ${TREE} /mnt/disk/tree; umount /mnt/disk`);
    expect(await again.stop()).toBe(0);
  }, 300_000);

  test("what tsbuse new writes holds a file system", async () => {
    const written = await run([BINARY, "new", inDirectory("disk")]);
    expect(written).toEqual({
      status: 0,
      stdout: `sudo tsbuse run ${DIRECTORY}/disk/device.ts auto --watch\n`,
      stderr: "",
    });
    const server = await Server.start("run", inDirectory("disk/device.ts"), node, "--", "size=96M");
    expect(await sh(`blockdev --getsize64 ${node}`)).toBe(String(96 * 2 ** 20));
    await holdsFileSystem();
    expect(await server.stop()).toBe(0);
  }, 300_000);

  test("saved again and again while fio verifies: not one error", async () => {
    const server = await startWatched("Math.random() * 3");
    const job = ["--bs=4k", "--iodepth=32", "--size=4M", "--verify_backlog=256", ...VERIFY];
    const over = new AbortController();
    const verifying = (async () => {
      do expect(await fio(node, ...job)).toMatchObject({ errors: 0, messages: "" });
      while (!over.signal.aborted);
    })();
    for (let number = 1; number <= RELOADS; number += 1) await reload(number);
    over.abort();
    await verifying;
    expect(await server.stop()).toBe(0);
    const lines = (await server.errors).trimEnd().split("\n");
    expect(lines).toEqual(
      Array(RELOADS).fill(`tsbuse: ${DIRECTORY}/disk.ts was reloaded and has taken over`),
    );
  }, 300_000);

  test("a mounted file system does not notice a module that is wrong, nor the one that is right again", async () => {
    const server = await startWatched("0");
    await sh(`mkfs.ext4 -q ${node}; mount ${node} /mnt/disk; echo before > /mnt/disk/file; sync`);
    await reload(1);
    const wrong = {
      syntax: generation(2).replace("class Disk", "class 2"),
      size: generation(2).replace("2 ** 25", "2 ** 26"),
      throws: `${generation(2)}\nthrow null;`,
    };
    for (const text of Object.values(wrong)) {
      save("disk.ts", text);
      await sh(
        "echo 3 > /proc/sys/vm/drop_caches; cat /mnt/disk/file; cp /mnt/disk/file /mnt/disk/copy; sync",
      );
    }
    await reload(3);
    expect(
      await sh("echo 3 > /proc/sys/vm/drop_caches; cat /mnt/disk/file /mnt/disk/copy; umount /mnt/disk"),
    ).toBe("before\nbefore");
    await sh(`fsck.ext4 -fn ${node}`);
    expect(await server.stop()).toBe(0);
  }, 300_000);

  test("a request that hangs: the saved module takes over, and is asked again when it ends", async () => {
    const byteAt = (kib: number): Promise<string> =>
      sh(`dd if=${node} bs=4k skip=${kib / 4} count=1 iflag=direct status=none | od -An -N1 -tu1`);
    writeFiles(DIRECTORY, { "disk.ts": hanging(1) });
    const server = await Server.start("run", inDirectory("disk.ts"), node, "--watch");
    writeFileSync(inDirectory("hang"), "");
    const hung = byteAt(512);
    await until("it hangs", () => existsSync(inDirectory("hangs")));
    save("disk.ts", hanging(2));
    await until("the new one answers", async () => (await byteAt(64)) === "2", 30_000);
    rmSync(inDirectory("hang"));
    expect(await hung).toBe("2");
    expect(await server.stop()).toBe(0);
    expect(await server.errors).toEndWith(
      "; the device before has not answered 1 request: see what it waits for, or give --request-timeout\n",
    );
  }, 300_000);

  test("a module that is wrong from the beginning: one line, and the node is untouched", async () => {
    writeFiles(DIRECTORY, {
      "disk.ts": 'import { lost } from "./lib.ts";\nexport default lost;',
      "lib.ts": "export const a = 1;",
    });
    const { status, stdout, stderr } = await run([BINARY, "run", inDirectory("disk.ts"), node]);
    expect(stderr).toMatch(
      /^tsbuse: \/mnt\/module\/disk\.ts:1:10: No matching export in ".*lib\.ts" for import "lost"\n$/,
    );
    expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
    expect(disk.isAttached).toBe(false);
  });

  test("what a module throws in a timer is reported, and the device goes on", async () => {
    writeFiles(DIRECTORY, {
      "disk.ts": `const bytes = new Uint8Array(2 ** 20).fill(7);
export default { size: bytes.length, read(target: Uint8Array, offset: number) {
  setTimeout(() => { throw new Error("stray"); }, 0);
  target.set(bytes.subarray(offset, offset + target.length));
} };`,
    });
    const server = await Server.start("run", inDirectory("disk.ts"), node);
    await sh(`dd if=${node} of=/dev/null bs=4k count=4 iflag=direct status=none`);
    expect(await sh(`dd if=${node} bs=4k count=1 iflag=direct status=none | od -An -N2 -tx1`)).toBe("07 07");
    expect(await server.stop()).toBe(0);
    expect(await server.errors).toContain("tsbuse: the module failed outside of a request: stray\n");
  });
});
