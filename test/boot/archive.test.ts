/**
 * Goal: the archive, appended to an initramfs of busybox and two modules, is all that a rescue system needs, and
 * the commands of docs/rescue.md are how it is used there.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { copyFileSync, mkdirSync, readFileSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { ensureKernel } from "../../scripts/lib/kernel.ts";
import { compressed, rescueArchive } from "../../scripts/lib/rescue-archive.ts";
import { boot, moduleFile } from "../support/boot.ts";
import { sh } from "../support/shell.ts";
import { TemporaryDirectory } from "../support/temporary.ts";

const ROOT = join(import.meta.dir, "../..");
const BUN = process.execPath;
const ARCHIVE = join(ROOT, "dist/tsbuse-rescue.cpio");

const MIB = 2 ** 20;

/** The commands that docs/rescue.md types in the rescue system: the block of its section that attaches a device. */
function pageCommands(): string {
  const page = readFileSync(join(ROOT, "docs/rescue.md"), "utf8");
  const section = /^## In a rescue system$([\s\S]*?)^## /m.exec(page)?.[1] ?? "";
  const blocks = section.split(/\n(?! {4}|\n)/).filter((block) => block.includes("    tsbuse ramdisk "));
  expect(blocks).toHaveLength(1);
  return [...(blocks[0] ?? "").matchAll(/^ {4}(.*)$/gm)].map(([, line]) => `${line}\n`).join("");
}

let directory: TemporaryDirectory;

beforeAll(async () => {
  directory = new TemporaryDirectory();
  await sh(`cd '${ROOT}' && '${BUN}' run build && cp dist/tsbuse '${directory.join("first")}'`);
  console.log(await sh(`cd '${ROOT}' && unset SOURCE_DATE_EPOCH && '${BUN}' run build:rescue`, 600_000));
}, 700_000);

afterAll(() => directory[Symbol.dispose]());

test("two builds make the same bytes, and the .zst holds the same", async () => {
  await sh(`cmp '${directory.join("first")}' '${ROOT}/dist/tsbuse'`);
  const { archive } = rescueArchive(directory.join("first"), 0);
  expect(Buffer.from(archive).equals(readFileSync(ARCHIVE))).toBe(true);
  await sh(`zstd --quiet --decompress --stdout '${ARCHIVE}.zst' | cmp - '${ARCHIVE}'`);
  const sample = archive.slice(0, 4 * MIB);
  expect(Buffer.from(await compressed(sample)).equals(await compressed(sample))).toBe(true);
});

interface Base {
  /** The files below the image's root, by what they are copied from. */
  readonly files: Readonly<Record<string, string>>;
  readonly links: Readonly<Record<string, string>>;
  readonly directories: readonly string[];
}

/** Packs the initramfs to append the archive to, with busybox's own cpio. */
async function packBase(name: string, base: Base): Promise<string> {
  const root = directory.join(`${name}-root`);
  for (const path of base.directories) mkdirSync(join(root, path), { recursive: true });
  for (const [path, target] of Object.entries(base.links)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    symlinkSync(target, join(root, path));
  }
  for (const [path, source] of Object.entries(base.files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    copyFileSync(source, join(root, path));
  }
  await Bun.write(join(root, "readme.sh"), pageCommands());
  const image = directory.join(`${name}.img`);
  await sh(`cd '${root}' && find . | busybox cpio -o -H newc > '${image}'`);
  return image;
}

const SCRIPTS = {
  init: join(import.meta.dir, "rescue-init.sh"),
  "second-init.sh": join(import.meta.dir, "second-init.sh"),
};

/** Where the guest's kernel looks for its modules. */
async function moduleDirectory(): Promise<string> {
  return `lib/modules/${(await ensureKernel()).version}/kernel/drivers/block`;
}

/** What every boot has to say, in its order; numbers that are its own are left out. */
const STEPS = [
  "unpacked",
  "modules",
  "attached",
  "written",
  "read back",
  "argv",
  "resident",
  "available",
  "detached",
  "switching",
  "root",
  "server spared",
  "held",
  "read back",
];

function stepsOf(said: readonly string[]): string[] {
  return said.map((line) => STEPS.find((step) => line.startsWith(step)) ?? line);
}

function valueOf(said: readonly string[], name: string): string {
  return said.find((line) => line.startsWith(`${name} `))?.slice(name.length + 1) ?? "";
}

function checkCommon(said: readonly string[]): void {
  expect(valueOf(said, "attached")).toBe(`${(64 * MIB) / 512} sectors`);
  expect(Number(valueOf(said, "written"))).toBeGreaterThan(58 * MIB);
  expect(valueOf(said, "argv")).toBe("@");
  expect(valueOf(said, "root")).toBe("/dev/nbd0");
  // Of the old root, which was emptied, no more than the file by which its node is known to be served: beside it
  // sockets, /dev/null and the root directory itself.
  const held = valueOf(said, "held").trim().split(" ");
  expect(
    held.filter((name) => !/^(socket|anon_inode|\/dev\/null|\/run\/tsbuse\/nbd0|\/|pipe)$/.test(name)),
  ).toEqual([]);
}

describe("a rescue system of busybox, two modules and the archive", () => {
  test("of 384 MiB: the .zst behind a compressed image, modules as .ko.xz, devtmpfs", async () => {
    const modules = await moduleDirectory();
    const packed: Record<string, string> = {};
    for (const name of ["nbd", "ublk_drv"]) {
      const path = directory.join(`${name}.ko`);
      copyFileSync(await moduleFile(`drivers/block/${name}`), path);
      // As Debian packs them: the kernel unpacks no other checksum.
      await sh(`xz --check=crc32 --lzma2=dict=1MiB '${path}'`);
      packed[`${modules}/${name}.ko.xz`] = `${path}.xz`;
    }
    const base = await packBase("small", {
      files: { ...SCRIPTS, "bin/busybox": "/bin/busybox", ...packed },
      links: { "bin/sh": "busybox" },
      directories: ["dev", "mnt", "proc", "sys"],
    });
    const image = directory.join("small-all.img");
    // A length that is no multiple of four: nothing but a compressed archive can follow it.
    await sh(`gzip -n '${base}' && { cat '${base}.gz'; head -c 1 /dev/zero; } > '${image}'`);
    await sh(`[ $(( $(wc -c < '${image}') % 4 )) -ne 0 ] || head -c 1 /dev/zero >> '${image}'`);
    await sh(`cat '${ARCHIVE}.zst' >> '${image}'`);

    const said = await boot({ image, memoryMib: 384, limitMs: 120_000 });

    console.log(said.join("\n"));
    expect(stepsOf(said)).toEqual(STEPS);
    expect(valueOf(said, "modules")).toContain("nbd.ko.xz");
    checkCommon(said);
  });

  test("with no devtmpfs, a link for /usr and a C library of its own: the archive as it is, modules as .ko", async () => {
    const modules = await moduleDirectory();
    const foreign = directory.join("foreign");
    await Bun.write(foreign, "another loader\n");
    const base = await packBase("linked", {
      files: {
        ...SCRIPTS,
        "bin/busybox": "/bin/busybox",
        [`${modules}/nbd.ko`]: await moduleFile("drivers/block/nbd"),
        "foreign/ld-linux-x86-64.so.2": foreign,
        "lib64/ld-linux-x86-64.so.2": foreign,
      },
      links: { usr: ".", "bin/sh": "busybox" },
      directories: ["dev", "mnt", "proc", "sys"],
    });
    const image = directory.join("linked-all.img");
    await sh(`cat '${base}' '${ARCHIVE}' > '${image}'`);

    const said = await boot({ image, memoryMib: 768, limitMs: 120_000, parameters: "devtmpfs=no" });

    console.log(said.join("\n"));
    expect(said[0]).toBe("kept ld-linux-x86-64.so.2");
    expect(stepsOf(said.slice(1))).toEqual(STEPS);
    checkCommon(said);
  });
});
