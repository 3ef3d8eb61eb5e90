/** Goal: a device that was attached with --recover outlives its server, and its users notice nothing but a delay. */
import { afterEach, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { Control } from "../../src/ublk/control/control.ts";
import { UBLK_U_CMD_START_USER_RECOVERY } from "../../src/uapi/ublk_cmd.ts";
import { fio, VERIFY } from "../support/fio.ts";
import { pattern, writeDirect } from "../support/node-io.ts";
import { BINARY, endServers, refusal, Server } from "../support/server.ts";
import { run, sh, until } from "../support/shell.ts";
import { completed, devices } from "../support/ublk-nodes.ts";

const NODE = "/dev/ublkb0";
const MIB = 2 ** 20;
const FILE = "/mnt/recover.img";
const OVERLAY = "/mnt/recover.overlay";

/** What `tsbuse list` says of the first node. */
async function listed(): Promise<{ readonly pid: number | null; readonly waiting: boolean }> {
  return JSON.parse((await run([BINARY, "list", "--json"])).stdout)[0];
}

afterEach(async () => {
  await sh("umount /mnt/recover 2>/dev/null || true");
  await endServers();
  if (existsSync("/dev/ublkc0")) await run([BINARY, "disconnect", NODE, "--force"]);
  await sh(`rm -f ${FILE} ${OVERLAY}`);
});

test.each<[string, number, string[]]>([
  ["a file", 10, []],
  ["an overlay file", 5, ["--layer", `cow:file=${OVERLAY}`]],
])(
  "%s: %d times killed under fio, and resumed: no error, no mismatch",
  async (_, rounds, layers) => {
    await sh(`truncate -s 16M ${FILE}`);
    let server = await Server.start("loop", FILE, NODE, "--recover", ...layers);
    for (let round = 1; round <= rounds; round += 1) {
      const before = completed();
      const job = ["--bs=4k", "--size=16M", "--iodepth=32", `--randseed=${round}`];
      let isOver = false;
      const load = fio(NODE, ...job, ...VERIFY).finally(() => (isOver = true));
      // Anywhere in the 4096 writes, and the reads that verify them.
      await until(`fio is at work in round ${round}`, () => completed() > before + 700 * round, 60_000);
      expect(isOver).toBe(false);
      expect(await server.stop("SIGKILL")).toBe(137);
      server = await Server.start("recover", NODE, "loop", FILE, ...layers);
      expect(server.path).toBe(NODE);
      expect(await load).toMatchObject({ errors: 0, messages: "" });
    }
    expect(await server.stop()).toBe(0);
    expect(devices()).toEqual([]);
  },
  180_000,
);

test("a mounted ext4 sees no error, and is clean afterwards", async () => {
  let server = await Server.start("loop", FILE, NODE, "--create", "64M", "--recover");
  await sh(`mkfs.ext4 -q ${NODE}; mkdir -p /mnt/recover; mount ${NODE} /mnt/recover; dmesg -C`);
  const writing = sh(
    "for i in $(seq 200); do echo $i > /mnt/recover/$i; sync -f /mnt/recover/$i; done; cat /mnt/recover/[0-9]* | sort -n | sha256sum",
  );
  for (let round = 1; round <= 3; round += 1) {
    const before = completed();
    await until(`files are written in round ${round}`, () => completed() > before + 40, 20_000);
    await server.stop("SIGKILL");
    server = await Server.start("recover", NODE, "loop", FILE);
  }
  expect(await writing).toBe(await sh("seq 200 | sha256sum"));
  await sh(`umount /mnt/recover; fsck.ext4 -fn ${NODE}`);
  expect(await sh("dmesg")).not.toMatch(/I\/O error|EXT4-fs error/);
  expect(await server.stop()).toBe(0);
}, 120_000);

test("users wait meanwhile, list says so, and nobody else gets the node", async () => {
  const server = await Server.start("loop", FILE, NODE, "--create", "4M", "--recover");
  expect(writeDirect(NODE, 0, pattern(4096, 5))).toBe(4096);
  await server.stop("SIGKILL");
  const reading = sh(`dd if=${NODE} bs=4k count=1 iflag=direct status=none | sha256sum`);
  let read = false;
  void reading.then(() => (read = true));
  await until("the driver knows", async () => (await listed()).waiting === true);
  expect(await listed()).toMatchObject({ node: NODE, pid: null, waiting: true });
  expect(await refusal("loop", FILE, NODE)).toContain(`${NODE} waits for its server`);
  expect(await refusal("recover", NODE, "ramdisk", "1M")).toContain(`${NODE} has ${4 * MIB} bytes`);
  expect(await refusal("recover", "/dev/ublkb9", "loop", FILE)).toContain("/dev/ublkb9 does not exist");
  expect(read).toBe(false);
  const next = await Server.start("recover", NODE, "loop", FILE);
  expect(await reading).toBe(await sh(`head -c 4096 ${FILE} | sha256sum`));
  expect(await listed()).toMatchObject({ pid: next.pid, waiting: false });
  expect(await refusal("recover", NODE, "ramdisk", "4M")).toContain(`served by process ${next.pid}`);
  expect(await next.stop()).toBe(0);
  expect(devices()).toEqual([]);
});

test("a device that waits can be disconnected: its users get errors", async () => {
  const server = await Server.start("loop", FILE, NODE, "--create", "4M", "--recover");
  await server.stop("SIGKILL");
  const reading = run(["dd", `if=${NODE}`, "of=/dev/null", "bs=4k", "count=1", "iflag=direct"]);
  await until("the driver knows", async () => (await listed()).waiting === true);
  expect(await run([BINARY, "disconnect", NODE])).toEqual({ status: 0, stdout: "", stderr: "" });
  expect((await reading).status).toBe(1);
  expect(devices()).toEqual([]);
});

test("a device whose next server was killed while it took over can be disconnected", async () => {
  const server = await Server.start("loop", FILE, NODE, "--create", "4M", "--recover");
  await server.stop("SIGKILL");
  await until("the driver knows", async () => (await listed()).waiting);
  const control = new Control();
  try {
    expect(await control.command(UBLK_U_CMD_START_USER_RECOVERY, { device: 0 })).toBe(0);
  } finally {
    control.close();
  }
  expect(await refusal("recover", NODE, "loop", FILE)).toContain(
    `${NODE} cannot be resumed, a server has ended while it took over: `,
  );
  expect(await run([BINARY, "disconnect", NODE])).toEqual({ status: 0, stdout: "", stderr: "" });
  expect(devices()).toEqual([]);
});

test("without --recover there is nothing to resume", async () => {
  const server = await Server.start("loop", FILE, NODE, "--create", "4M");
  expect(await refusal("recover", NODE, "ramdisk", "4M")).toContain(
    `${NODE} was not attached with --recover`,
  );
  expect(await server.stop()).toBe(0);
});
