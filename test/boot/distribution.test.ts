/**
 * Goal: the real dracut and the real initramfs-tools put tsbuse into the images they make, and those attach what the
 * kernel's command line asks for: the root file system itself, on a disk that appears late, and a RAM disk.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { chmodSync, copyFileSync, mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { ensureDebianRoot } from "../../scripts/lib/debian-root.ts";
import { ensureKernel } from "../../scripts/lib/kernel.ts";
import { boot } from "../support/boot.ts";
import { run, sh } from "../support/shell.ts";
import { TemporaryDirectory } from "../support/temporary.ts";

const ROOT = join(import.meta.dir, "../..");
const BINARY = join(ROOT, "dist/tsbuse");

const MIB = 2 ** 20;
const DISK_MIB = 48;
const RAM_DISK_MIB = 32;

/** Making an image, in milliseconds: dracut takes one. */
const IMAGE_MS_MAX = 300_000;

/** How each makes its image, and the nodes: an NBD server does not live through systemd's switch of the root. */
const BUILDERS = {
  dracut: {
    command: (version: string, image: string) =>
      `dracut --no-hostonly --force --kver ${version} ${image}`.split(" "),
    nodes: ["/dev/ublkb0", "/dev/ublkb1"],
  },
  "initramfs-tools": {
    command: (version: string, image: string) => ["mkinitramfs", "-o", image, version],
    nodes: ["/dev/nbd0", "/dev/nbd1"],
  },
} as const;

let directory: TemporaryDirectory;
let root: string;
let disk: string;

beforeAll(async () => {
  directory = new TemporaryDirectory();
  root = directory.join("root");
  await sh(`cp -a --reflink=auto '${await ensureDebianRoot()}' '${root}'`, 300_000);
  const { modules, version } = await ensureKernel();
  mkdirSync(join(root, "usr/lib/modules"), { recursive: true });
  await sh(`cp -a '${modules}/${version}' '${root}/usr/lib/modules/'`);
  // The drivers as a distribution has them.
  const drivers = join(root, "usr/lib/modules", version, "kernel/drivers/block");
  await sh(`xz --check=crc32 --lzma2=dict=1MiB '${drivers}/nbd.ko' '${drivers}/ublk_drv.ko'`);
  await sh(`chroot '${root}' depmod ${version}`);
  // initramfs-tools asks the kernel's configuration what it can unpack.
  await Bun.write(join(root, `boot/config-${version}`), "CONFIG_RD_ZSTD=y\n");
  copyFileSync(BINARY, join(root, "usr/local/bin/tsbuse"));
  chmodSync(join(root, "usr/local/bin/tsbuse"), 0o755);
  disk = await makeDisk();
}, 900_000);

afterAll(() => directory[Symbol.dispose]());

/** A disk with an ext4 file system of busybox and a first process. */
async function makeDisk(): Promise<string> {
  const content = directory.join("disk");
  for (const name of ["bin", "sbin", "dev", "mnt", "proc", "run", "sys", "tmp", "etc", "usr"]) {
    mkdirSync(join(content, name), { recursive: true });
  }
  copyFileSync("/bin/busybox", join(content, "bin/busybox"));
  symlinkSync("busybox", join(content, "bin/sh"));
  copyFileSync(join(import.meta.dir, "system-init.sh"), join(content, "sbin/init"));
  // dracut takes a directory without it for no root.
  await Bun.write(join(content, "etc/os-release"), "ID=test\n");
  const image = directory.join("disk.img");
  await sh(`truncate -s ${DISK_MIB}M '${image}' && mkfs.ext4 -q -d '${content}' '${image}'`);
  return image;
}

test.each(["dracut", "initramfs-tools"] as const)(
  "%s",
  async (builder) => {
    const { version } = await ensureKernel();
    const {
      command,
      nodes: [rootNode, ramNode],
    } = BUILDERS[builder];
    const install = (...words: readonly string[]) =>
      run([BINARY, "install-initramfs", `--${builder}`, "--root", root, ...words]);
    expect(await install()).toMatchObject({ status: 0 });
    const image = `/boot/${builder}.img`;
    const made = await run(["chroot", root, ...command(version, image)], IMAGE_MS_MAX);
    expect({ ...made, stdout: "", stderr: made.status === 0 ? "" : made.stderr }).toMatchObject({
      status: 0,
      stderr: "",
    });
    expect(await install("--remove")).toMatchObject({ status: 0 });

    const said = await boot({
      image: join(root, image),
      disk,
      memoryMib: 1024,
      limitMs: 240_000,
      beginning: "Run /init as init process",
      parameters: [
        `loglevel=7 root=${rootNode} ro tsbuse_ram=${ramNode}`,
        `tsbuse=loop,/dev/vda,${rootNode}`,
        `tsbuse=ramdisk,${RAM_DISK_MIB}M,${ramNode}`,
      ].join(" "),
    });

    expect(said).toEqual([
      `${rootNode} ${(DISK_MIB * MIB) / 512}`,
      `${ramNode} ${(RAM_DISK_MIB * MIB) / 512}`,
      "servers 2",
      "/ read back",
      "/mnt read back",
    ]);
  },
  800_000,
);
