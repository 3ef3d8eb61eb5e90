/** Goal: a device in use is left alone, however it is used, and its user is identified correctly. */
import { afterEach, describe, expect, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { libc, serve } from "tsbuse";
import { Ramdisk } from "../../devices/ramdisk.ts";
import { BINARY, endServers, Server } from "../support/server.ts";
import { run, sh, until } from "../support/shell.ts";
import { TestNode, TRANSPORTS } from "../support/transports.ts";

const MIB = 2 ** 20;
const OK = { status: 0, stdout: "", stderr: "" };

const children: Bun.Subprocess[] = [];

/** Starts a process that runs until {@link endChildren}. */
function begin(...command: string[]): Bun.Subprocess {
  const child = Bun.spawn(command, { stdio: ["ignore", "ignore", "inherit"] });
  children.push(child);
  return child;
}

async function endChildren(): Promise<void> {
  for (const child of children.splice(0)) {
    child.kill("SIGKILL");
    await child.exited;
  }
}

afterEach(endChildren);

interface Listed {
  readonly node: string;
  readonly pid: number | null;
  readonly waiting: boolean;
}

async function listed(node: string, ...before: string[]): Promise<Listed | undefined> {
  const all: Listed[] = JSON.parse((await run([...before, BINARY, "list", "--json"])).stdout);
  return all.find((one) => one.node === node);
}

async function refusal(...words: string[]): Promise<string> {
  const { status, stdout, stderr } = await run(words);
  expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
  expect(stderr).toMatch(/^tsbuse: [^\n]+\n$/);
  return stderr;
}

interface Use {
  readonly name: string;
  /** Shell scripts: `$node` is the device. */
  readonly begin: string;
  readonly end: string;
  readonly refusal: RegExp;
}

const MOUNT = "mkdir -p /mnt/use; mount $device /mnt/use";

const USES: readonly Use[] = [
  {
    name: "an external journal",
    begin: `mke2fs -q -O journal_dev -b 4096 $node; truncate -s 64M /mnt/fs.img
      device=$(losetup -f --show /mnt/fs.img); mkfs.ext4 -q -b 4096 -J device=$node $device; ${MOUNT}`,
    end: "device=$(findmnt -no SOURCE /mnt/use); umount /mnt/use; losetup -d $device; rm /mnt/fs.img",
    refusal: /is in use, perhaps as the journal or a part of another file system: unmount that first, or/,
  },
  {
    name: "a mounted partition",
    begin: `echo ,,L | sfdisk -q $node; until [ -b \${node}p1 ]; do sleep 0.1; done; device=\${node}p1; mke2fs -q $device; ${MOUNT}`,
    end: "umount /mnt/use",
    refusal: /is mounted at \/mnt\/use: unmount it first, or/,
  },
  {
    name: "swap",
    begin: "mkswap $node >/dev/null; swapon $node",
    end: "swapoff $node",
    refusal: /is used as swap: /,
  },
  {
    name: "a device mapper",
    begin: 'dmsetup create use --table "0 2048 linear $node 0"',
    end: "dmsetup remove use",
    refusal: /is held by \/dev\/dm-\d+: /,
  },
  {
    name: "a loop device",
    begin: "losetup -f $node",
    end: "losetup -d $(losetup -nO NAME -j $node)",
    refusal: /is held by \/dev\/loop\d+: /,
  },
];

describe.each(TRANSPORTS)("$name", (transport) => {
  const disk = new TestNode(transport, 0);
  const node = disk.path;
  const shell = (script: string): Promise<string> => sh(`node=${node}; ${script}`);

  afterEach(async () => {
    await endChildren();
    await endServers();
    await disk.untilFree();
  });

  /** Expects disconnect to be refused without harm, and to work once the use has ended. */
  async function isLeftAlone(server: Server, expected: RegExp, end: () => Promise<unknown>): Promise<void> {
    expect(await refusal(BINARY, "disconnect", node)).toMatch(expected);
    await sh(`dd if=${node} of=/dev/null bs=4k count=1 iflag=direct status=none`);
    await end();
    expect(await run([BINARY, "disconnect", node])).toEqual(OK);
    expect(await server.ended()).toBe(0);
  }

  test.each(USES)("disconnect leaves what is used as $name alone", async (use) => {
    const server = await Server.start("ramdisk", "64M", node);
    await shell(use.begin);
    await isLeftAlone(server, use.refusal, () => shell(use.end));
  });

  test("disconnect leaves what is mounted in another namespace alone, and its remedy helps", async () => {
    const server = await Server.start("ramdisk", "64M", node);
    await sh(`mke2fs -q ${node}; mkdir -p /mnt/use`);
    const holder = begin(
      "unshare",
      "-m",
      "sh",
      "-c",
      `mount ${node} /mnt/use; touch /mnt/ready; exec sleep 600`,
    );
    await until("it is mounted", () => existsSync("/mnt/ready"));
    await sh("rm /mnt/ready");
    const remedy = `nsenter -t ${holder.pid} -m umount /mnt/use`;
    const expected = new RegExp(
      `is mounted at /mnt/use in the mount namespace of sleep .* run "${remedy}" first`,
    );
    await isLeftAlone(server, expected, () => sh(remedy));
  });

  test("disconnect leaves what a program has open for itself alone, and names the program", async () => {
    const server = await Server.start("ramdisk", "1M", node);
    const fd = libc.unwrap(libc.open(node, libc.O_RDONLY | libc.O_EXCL), node);
    const expected = new RegExp(`is in use, and open in .* \\(process ${process.pid}\\): end that first, or`);
    await isLeftAlone(server, expected, async () => libc.close(fd));
  });

  test("a use that passes is waited for by a start", async () => {
    const server = await Server.start("ramdisk", "1M", node);
    const fd = libc.unwrap(libc.open(node, libc.O_RDONLY | libc.O_EXCL), node);
    await server.stop("SIGKILL");
    const starting = Server.start("loop", "/mnt/passing.img", node, "--create", "1M");
    // It makes the file just before it opens the node, and waits for the node much longer than this.
    await until("it wants the node", () => existsSync("/mnt/passing.img"));
    await Bun.sleep(200);
    libc.close(fd);
    expect(await (await starting).stop()).toBe(0);
    await sh("rm /mnt/passing.img");
  });

  // The choice of "auto" does not depend on the transport.
  const targets = transport === TRANSPORTS[0] ? [transport.any, "auto"] : [transport.any];

  test.each(targets)("eight starts of %s at once are eight devices", async (target) => {
    const starts = Array.from({ length: 8 }, () => Server.start("ramdisk", "1M", target));
    const servers = await Promise.all(starts);
    expect(new Set(servers.map(({ path }) => path)).size).toBe(8);
    expect(await Promise.all(servers.map((server) => server.stop()))).toEqual(Array(8).fill(0));
  });

  test("a server is not taken for another process, in whichever PID namespace one of them is", async () => {
    const inside = ["unshare", "--fork", "--pid", "--mount-proc"];
    const server = await Server.start("ramdisk", "1M", node);
    expect(await listed(node)).toMatchObject({ pid: server.pid });
    expect(await listed(node, ...inside)).toMatchObject({ pid: null });
    expect(await refusal(...inside, BINARY, "ramdisk", "1M", node)).toContain(
      `${node} is attached, and what serves it cannot be seen from here: `,
    );
    await server.stop();
    const outer = begin(...inside, BINARY, "ramdisk", "1M", node);
    await until("it is served", () => disk.size === MIB);
    const inner = Number(await sh(`cat /proc/${outer.pid}/task/${outer.pid}/children`));
    expect(await listed(node)).toMatchObject({ pid: inner });
    expect(await run([BINARY, "disconnect", node])).toEqual(OK);
  });

  test("--initrd: signals leave a device alone that is in use, though nothing of it is mounted", async () => {
    await sh(
      `${BINARY} ramdisk 64M ${node} --initrd --pid-file /run/root.pid >/dev/null; node=${node}; ${USES[0]?.begin}`,
    );
    const pid = readFileSync("/run/root.pid", "utf8").trim();
    await sh(`kill ${pid}`);
    await until("it says so", async () =>
      (await sh("dmesg")).includes(`tsbuse[${pid}]: SIGTERM ignored: the device is in use`),
    );
    await sh(`dd if=${node} of=/dev/null bs=4k count=1 iflag=direct status=none`);
    await shell(`${USES[0]?.end}; kill ${pid}`);
    await until("it has ended", () => !existsSync(`/proc/${pid}`));
  });
});

test("a node that was attached by netlink is nobody's, and not left behind", async () => {
  const device = new Ramdisk(4 * MIB);
  await using _ = await serve(device, "unix:/run/netlink.sock");
  await sh("nbd-client -unix /run/netlink.sock /dev/nbd0 >/dev/null 2>&1");
  const pid = readFileSync("/sys/block/nbd0/pid", "utf8").trim();
  expect(await listed("/dev/nbd0")).toMatchObject({ pid: null });
  expect((await run([BINARY, "doctor"])).stdout).toContain("left-behind: no node without a server");
  // nbd-client has ended, and another process gets its number.
  await until("the number is taken", async () => {
    await endChildren();
    writeFileSync("/proc/sys/kernel/ns_last_pid", String(Number(pid) - 1));
    return String(begin("sleep", "600").pid) === pid;
  });
  expect(await listed("/dev/nbd0")).toMatchObject({ pid: null });
  expect(await refusal(BINARY, "ramdisk", "1M", "/dev/nbd0")).toBe(
    'tsbuse: /dev/nbd0 is attached, and what serves it cannot be seen from here: choose another node, or "auto"\n',
  );
  await sh("printf kept | dd of=/dev/nbd0 status=none");
  expect(await run([BINARY, "disconnect", "/dev/nbd0"])).toEqual(OK);
  const bytes = new Uint8Array(4);
  device.read(bytes, 0);
  expect(bytes.toString()).toBe(Buffer.from("kept").join());
});

test.each(["netlink", "ioctl"])(
  "a node that lost its server, by %s, is told, and the remedy frees it",
  async (way) => {
    const server = await Server.start("ramdisk", "1M", "/dev/nbd0", "--attach", way);
    const reader = begin("sh", "-c", "exec sleep 600 </dev/nbd0");
    await until("the reader has it open", async () =>
      (await sh(`readlink /proc/${reader.pid}/fd/0`)).includes("nbd0"),
    );
    await server.stop("SIGKILL");
    const who = `sleep (process ${reader.pid})`;
    expect((await run([BINARY, "doctor"])).stdout).toContain(`remedy: end ${who}\n`);
    expect(await refusal(BINARY, "ramdisk", "1M", "/dev/nbd0")).toContain(
      `has lost its server, but is still open in ${who}: `,
    );
    await endChildren();
    expect(await (await Server.start("ramdisk", "1M", "/dev/nbd0")).stop()).toBe(0);
  },
);

test("of two that recover a device at once, one does and the other leaves it alone", async () => {
  const server = await Server.start("deadbeef", "4M", "/dev/ublkb0", "--recover");
  await sh("losetup --read-only -f /dev/ublkb0");
  await server.stop("SIGKILL");
  await until("it waits", async () => (await listed("/dev/ublkb0"))?.waiting === true);
  expect(await refusal(BINARY, "disconnect", "/dev/ublkb0")).toMatch(
    /ublkb0 is held by \/dev\/loop\d+ and waits for its server: run "tsbuse recover" first, or/,
  );
  const words = ["recover", "/dev/ublkb0", "deadbeef", "4M"];
  const ends = await Promise.allSettled([Server.start(...words), Server.start(...words)]);
  const [winner] = ends.flatMap((end) => (end.status === "fulfilled" ? end.value : []));
  const [loser] = ends.flatMap((end) => (end.status === "rejected" ? String(end.reason) : []));
  expect(loser).toMatch(new RegExp(`/dev/ublkb0 is (served|being taken over) by process ${winner?.pid}, `));
  await sh("losetup -d $(losetup -nO NAME -j /dev/ublkb0)");
  expect(await winner?.stop()).toBe(0);
});

test("list and doctor say what they can without io_uring", async () => {
  const server = await Server.start("ramdisk", "1M", "/dev/ublkb0");
  const other = await Server.start("ramdisk", "1M", "/dev/nbd0");
  const file = "/proc/sys/kernel/io_uring_disabled";
  writeFileSync(file, "2");
  try {
    const list = await run([BINARY, "list", "--json"]);
    expect(list.status).toBe(0);
    expect(list.stderr).toMatch(
      /^tsbuse: .*not all is known of the ublk devices: io_uring is switched off here: .*\n$/,
    );
    expect(JSON.parse(list.stdout)).toMatchObject([
      { node: "/dev/ublkb0", size: MIB, pid: server.pid },
      { node: "/dev/nbd0", size: MIB, pid: other.pid },
    ]);
    const doctor = await run([BINARY, "doctor"]);
    expect({ status: doctor.status, stderr: doctor.stderr }).toEqual({ status: 0, stderr: "" });
    expect(doctor.stdout).toContain("warn  ublk: cannot be used, io_uring is switched off here\n");
    expect(doctor.stdout).toContain("warn  ublk-left-behind: not known, ");
  } finally {
    writeFileSync(file, "0");
  }
  expect([await server.stop(), await other.stop()]).toEqual([0, 0]);
});
