/** Goal: without modprobe and udev the driver is loaded, with its parameters, and the nodes are made. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { release } from "node:os";
import { BINARY, endServers } from "../support/server.ts";
import { run, sh } from "../support/shell.ts";

const MODPROBE = "/usr/sbin/modprobe";
const HIDDEN = "/usr/sbin/modprobe.hidden";
const RELEASE = release();
const NBD = `/lib/modules/${RELEASE}/kernel/drivers/block/nbd.ko`;
/** Replaces /lib/modules in some tests. */
const MODULES = "/mnt/modules";
const COPY = `${MODULES}/${RELEASE}/extra/nbd.ko`;

beforeAll(async () => {
  await sh(`mkdir -p /mnt/kept && cp ${NBD} /mnt/kept/nbd.ko`);
});

beforeEach(async () => {
  await sh(`modprobe -r nbd; mkdir -p ${MODULES}/${RELEASE}/extra`);
});

/** Undoes a test's replacements. */
afterEach(async () => {
  await endServers();
  // The guest's own /lib/modules is a mount as well, but of another file system than /mnt's.
  await sh(`if [ -e ${HIDDEN} ]; then mv ${HIDDEN} ${MODPROBE}; fi
    for path in /lib/modules /sys/module/compression; do
      if grep -q "/modules.* $(realpath $path) .* - tmpfs" /proc/self/mountinfo; then umount $path; fi
    done
    rm -rf ${MODULES}`);
});

/** Restores the state that the other tests expect. */
afterAll(async () => {
  await sh("modprobe -r nbd; modprobe nbd nbds_max=16 max_part=16");
});

function hideModprobe(): Promise<string> {
  return sh(`mv ${MODPROBE} ${HIDDEN}`);
}

/** Attaches /dev/nbd0 while a shell script runs. */
function attach(script: string, ...options: readonly string[]) {
  return run([BINARY, "ramdisk", "16M", "/dev/nbd0", "--run", script, ...options]);
}

function nodes(): number {
  return readdirSync("/sys/block").filter((name) => /^nbd\d+$/.test(name)).length;
}

const PARAMETERS = "cat /sys/module/nbd/parameters/max_part /sys/module/nbd/parameters/nbds_max";

test.each([
  ["without modprobe, by finit_module, with the driver's own parameters", true, [], "31\n16\n", 16],
  ["without modprobe", true, ["--max-part", "2", "--nbds-max", "5"], "3\n5\n", 5],
  ["with modprobe", false, ["--max-part", "4", "--nbds-max", "7"], "7\n7\n", 7],
])("%s: --max-part and --nbds-max take effect", async (_, hidden, options, parameters, count) => {
  if (hidden) await hideModprobe();
  const end = await attach(PARAMETERS, ...options);
  expect(end).toEqual({ status: 0, stdout: `/dev/nbd0\n${parameters}`, stderr: "" });
  expect(nodes()).toBe(count);
});

// The guest's kernel decompresses only .xz by itself.
test.each([
  ["xz", "xz --check=crc32 --lzma2=dict=1MiB", "the kernel"],
  ["xz", "xz --check=crc32 --lzma2=dict=1MiB", "this program"],
  ["gz", "gzip", "this program"],
  ["zst", "zstd -q --rm", "this program"],
])("without modprobe: .ko.%s as made by %p, decompressed by %s", async (suffix, command, who) => {
  await hideModprobe();
  await sh(`cp /mnt/kept/nbd.ko ${COPY}; ${command} ${COPY}; mount --bind ${MODULES} /lib/modules`);
  if (suffix === "xz") {
    expect(await sh("cat /sys/module/compression")).toBe("xz");
    if (who === "this program")
      await sh(`: >${MODULES}/none; mount --bind ${MODULES}/none /sys/module/compression`);
  }
  const doctor = await run([BINARY, "doctor"]);
  expect(doctor.stdout).toContain(
    `attaching a device loads /lib/modules/${RELEASE}/extra/nbd.ko.${suffix}\n`,
  );
  const end = await attach(PARAMETERS, "--nbds-max", "3");
  expect(end).toEqual({ status: 0, stdout: "/dev/nbd0\n31\n3\n", stderr: "" });
});

test("a driver that is there with other parameters is told of; that is no error, unless the node is missing and cannot be made", async () => {
  await sh("modprobe nbd nbds_max=2 max_part=0");
  const warning =
    'tsbuse: warning: nbd is there already with nbds_max=2 instead of 4: "modprobe -r nbd" first, while nothing is attached\n';
  expect(await attach("exit 0", "--max-part", "0", "--nbds-max", "4")).toEqual({
    status: 0,
    stdout: "/dev/nbd0\n",
    stderr: warning,
  });
  const words = ["ramdisk", "1M", "/dev/nbd3", "--nbds-max", "4", "--attach", "ioctl"];
  const { status, stderr } = await run([BINARY, ...words]);
  expect(status).toBe(1);
  expect(stderr).toBe(
    `${warning}tsbuse: /dev/nbd3 does not exist: the last node is /dev/nbd1, or load nbd with nbds_max=N\n`,
  );
});

// With symbol versions, the kernel compares only the words after the release.
test.each([
  ["with", "modprobe fails, and it is tried without"],
  ["without", "the kernel refuses it"],
])("%s modprobe: a module of another kernel is one line (%s)", async (modprobe) => {
  if (modprobe === "without") await hideModprobe();
  await sh(`sed 's/vermagic=${RELEASE} SMP/vermagic=${RELEASE.replace(/^\d/, "5")} UP_/' /mnt/kept/nbd.ko >${COPY}
    echo 'no signature any more' >>${COPY}; mount --bind ${MODULES} /lib/modules; depmod`);
  const end = await attach("exit 0");
  expect(end.status).toBe(1);
  expect(end.stdout).toBe("");
  expect(end.stderr).toBe(
    `tsbuse: the nbd driver cannot be loaded, /lib/modules/${RELEASE}/extra/nbd.ko was built for ` +
      `${RELEASE.replace(/^\d/, "5")}, and this is ${RELEASE}: ` +
      "install the modules of the running kernel, or boot the one they are for\n",
  );
});

async function failure(): Promise<string> {
  const end = await attach("exit 0");
  expect([end.status, end.stdout]).toEqual([1, ""]);
  return end.stderr;
}

test("no module, no modules at all, a damaged one: one line each", async () => {
  await hideModprobe();
  await sh(`mount --bind ${MODULES} /lib/modules`);
  expect(await failure()).toBe(
    `tsbuse: the nbd driver cannot be loaded, there is no nbd.ko in /lib/modules/${RELEASE}: ` +
      "install the kernel's extra modules (linux-modules-extra, kernel-modules-extra), or another kernel\n",
  );
  await sh(`head -c 3000 /dev/urandom >${COPY}`);
  expect(await failure()).toBe(
    `tsbuse: the nbd driver cannot be loaded, /lib/modules/${RELEASE}/extra/nbd.ko is no kernel module: install it anew\n`,
  );
  await sh(`rm -r ${MODULES}/${RELEASE}`);
  expect(await failure()).toContain(
    `cannot be loaded, the running kernel has no modules, /lib/modules/${RELEASE} does not exist: install`,
  );
});

test("a module whose signature is broken is told of", async () => {
  await hideModprobe();
  await sh(
    `sed 's/license=GPL/license=XXX/' /mnt/kept/nbd.ko >${COPY}; mount --bind ${MODULES} /lib/modules`,
  );
  expect(await failure()).toContain("the kernel does not trust the signature of /lib/modules/");
});

test("parameters that the driver refuses are named", async () => {
  await hideModprobe();
  await sh(`printf 'nbd.max_part=1000' >${MODULES}/cmdline; mount --bind ${MODULES}/cmdline /proc/cmdline`);
  try {
    const end = await attach("exit 0");
    expect(end.stderr).toBe(
      `tsbuse: the nbd driver cannot be loaded, the kernel refuses ${NBD} with max_part=1000: see "dmesg"\n`,
    );
  } finally {
    await sh("umount /proc/cmdline");
  }
});

/** Makes /mnt/disk.img with two partitions. */
function makePartitions(): Promise<string> {
  return sh(`truncate -s 16M /mnt/disk.img
    printf ',4M\\n,4M\\n' | sfdisk -q --no-reread --no-tell-kernel /mnt/disk.img`);
}

/** Runs a script in a mount namespace whose /dev is an almost empty tmpfs. */
function inPlainDev(script: string) {
  const few = `mount -t tmpfs none /dev; for n in 'null c 1 3' 'urandom c 1 9'; do mknod /dev/$n; done;`;
  return run(["unshare", "-m", "/bin/sh", "-ec", `${few} ${script}`]);
}

test("where /dev is a plain file system, nodes are made, those of partitions too, and these go with the device", async () => {
  await makePartitions();
  const end = await inPlainDev(`
    ${BINARY} loop /mnt/disk.img /dev/nbd0 --run 'cd /dev && stat -c "%n %F %a" nbd* && head -c 1 nbd0p2 | wc -c'
    ls /dev`);
  expect(end.stderr).toBe("");
  const node = "block special file 600";
  expect(end.stdout).toBe(
    `/dev/nbd0\nnbd0 ${node}\nnbd0p1 ${node}\nnbd0p2 ${node}\n1\nnbd0\nnull\nurandom\n`,
  );
});

test("a node of a partition that was there before stays", async () => {
  await makePartitions();
  const end = await inPlainDev(`mknod /dev/nbd0p1 b 43 1
    ${BINARY} loop /mnt/disk.img /dev/nbd0 --run 'true'; ls /dev`);
  expect(end).toEqual({ status: 0, stdout: "/dev/nbd0\nnbd0\nnbd0p1\nnull\nurandom\n", stderr: "" });
});

test("where /dev cannot be written to, or holds something else, that is one line", async () => {
  const readOnly = await inPlainDev(`mount -o remount,ro /dev; ${BINARY} ramdisk 1M /dev/nbd0`);
  expect(readOnly.status).toBe(1);
  expect(readOnly.stderr).toBe(
    "tsbuse: /dev/nbd0 does not exist and cannot be made (Read-only file system): " +
      'run "mount -t devtmpfs devtmpfs /dev", or make /dev writable\n',
  );
  const other = await inPlainDev(`mknod /dev/nbd0 b 43 1; ${BINARY} ramdisk 1M /dev/nbd0`);
  expect(other.status).toBe(1);
  expect(other.stderr).toBe(
    "tsbuse: /dev/nbd0 is not the block device 43:0: remove it, and run this again\n",
  );
});
