/**
 * Goal: as a service of a real systemd a device is there from the boot on, is taken over when its server is killed,
 * restarted or updated, under a file system in use, and the system shuts down in order: unmounted first, and clean.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { copyFileSync, mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { ensureDebianRoot } from "../../scripts/lib/debian-root.ts";
import { ensureKernel } from "../../scripts/lib/kernel.ts";
import { boot } from "../support/boot.ts";
import { sh } from "../support/shell.ts";
import { TemporaryDirectory } from "../support/temporary.ts";

const BINARY = join(import.meta.dir, "../../dist/tsbuse");

let directory: TemporaryDirectory;
let system: string;

beforeAll(async () => {
  directory = new TemporaryDirectory();
  const root = directory.join("root");
  await sh(`cp -a --reflink=auto '${await ensureDebianRoot()}' '${root}'`, 300_000);
  const { modules, version } = await ensureKernel();
  mkdirSync(join(root, "usr/lib/modules"), { recursive: true });
  await sh(`cp -a '${modules}/${version}' '${root}/usr/lib/modules/'; chroot '${root}' depmod ${version}`);
  // As somebody has downloaded it, who left the other binaries where they were.
  copyFileSync(BINARY, join(root, "root/tsbuse-linux-x64"));
  const absent = `${"0".repeat(64)}  tsbuse-linux-arm64`;
  await sh(
    `cd '${root}/root' && chmod 644 tsbuse-* && { echo '${absent}'; sha256sum tsbuse-*; } > SHA256SUMS`,
  );
  copyFileSync(join(import.meta.dir, "service-session.sh"), join(root, "usr/local/sbin/service-session"));
  await sh(`chmod 755 '${root}/usr/local/sbin/service-session'`);
  const units = join(root, "etc/systemd/system");
  await Bun.write(
    join(units, "session.service"),
    "[Service]\nExecStart=/usr/local/sbin/service-session\nStandardOutput=tty\nStandardError=tty\nTTYPath=/dev/console\n",
  );
  mkdirSync(join(units, "multi-user.target.wants"), { recursive: true });
  symlinkSync("../session.service", join(units, "multi-user.target.wants/session.service"));
  // What it says as it ends is looked at after the next boot.
  mkdirSync(join(root, "var/log/journal"), { recursive: true });
  system = directory.join("system.img");
  await sh(`truncate -s 1536M '${system}'; mkfs.ext4 -q -d '${root}' '${system}'`, 300_000);
}, 900_000);

afterAll(() => directory[Symbol.dispose]());

test("a service", async () => {
  const said = await boot({
    system,
    memoryMib: 1024,
    limitMs: 600_000,
    // Nothing else may write there.
    parameters: "quiet systemd.show_status=false systemd.mask=serial-getty@ttyS0.service",
  });
  expect(said).toEqual([
    "somebody else's unit: /etc/systemd/system/tsbuse-taken.service was not written by tsbuse",
    "no such service: there is no /etc/systemd/system/tsbuse-none.service",
    "next: sudo systemctl start tsbuse-my\\\\x20disk.service",
    "mounted by its UUID",
    "killed: served by another process, and written to",
    "restarted: served by another process, and written to",
    "handed over: served by another process, and written to",
    "killed after that: served by another process, and written to",
    "systemd begun anew: served by the same process, and written to",
    "removed while it is mounted: /dev/ublkb0 is mounted at /data",
    "stopped: it waits",
    "started: served by another process, and written to",
    "what was written was read back",
    "booted again: served and mounted",
    "the file systems were clean",
    "unmounted before the service was stopped, which ended well",
    "what was written before is there",
    "stopped: the nodes are gone",
    "removed",
  ]);
}, 800_000);
