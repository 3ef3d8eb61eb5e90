/** Goal: a device that was attached with --recover outlives its server, and its users notice only a delay. */
import { afterEach, describe, expect, test } from "bun:test";
import { closeSync, existsSync, openSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { attach } from "tsbuse";
import { Loop } from "../../devices/loop.ts";
import { ublkNodes } from "../../src/ublk/nodes.ts";
import type { PreparedQueue } from "../../src/ublk/queue/start.ts";
import { AsyncStore } from "../support/async-devices.ts";
import { fio, VERIFY } from "../support/fio.ts";
import { pattern, writeDirect } from "../support/node-io.ts";
import { BINARY, endServers, refusal, Server } from "../support/server.ts";
import { run, sh, until } from "../support/shell.ts";
import { Shadow } from "../support/shadow.ts";
import { completed, devices } from "../support/ublk-nodes.ts";
import { standIn } from "../support/stand-in.ts";

// A copy of the original module, because a test's replacement calls the original functions.
const start = { ...(await import("../../src/ublk/queue/start.ts")) };

const NODE = "/dev/ublkb0";
const MIB = 2 ** 20;
const FILE = "/mnt/recover.img";
const OVERLAY = "/mnt/recover.overlay";

interface Listed {
  readonly pid: number | null;
  readonly waiting: boolean;
  readonly identity: string | null;
}

/** The entry of the first node in `tsbuse list`. */
async function listed(): Promise<Listed> {
  return JSON.parse((await run([BINARY, "list", "--json"])).stdout)[0];
}

/** Waits until the driver knows that the server is gone. Asking the binary would take a second each time. */
async function untilWaiting(): Promise<void> {
  await until("the driver knows", async () => (await ublkNodes()).nodes[0]?.waiting === true);
}

afterEach(async () => {
  await sh("umount /mnt/recover 2>/dev/null || true");
  await endServers();
  if (existsSync("/dev/ublkc0")) await run([BINARY, "disconnect", NODE, "--force"]);
  await sh(`rm -f ${FILE} ${OVERLAY}`);
});

const LAYERS = ["--layer", `cow:file=${OVERLAY}`];

test.each<[string, number, string[], string[]]>([
  ["a file, by the same command line", 5, ["loop", FILE, NODE, "--recover"], []],
  [
    "an overlay file, by recover",
    5,
    ["loop", FILE, NODE, "--recover", ...LAYERS],
    ["recover", NODE, "loop", FILE, ...LAYERS],
  ],
])(
  "%s: %d times killed or stopped under fio, and resumed: no error, no mismatch",
  async (_, rounds, first, next) => {
    await sh(`truncate -s 16M ${FILE}`);
    let server = await Server.start(...first);
    // Keeps the node open even if fio ends early.
    const held = openSync(NODE, "r");
    for (let round = 1; round <= rounds; round += 1) {
      const before = completed();
      const job = ["--bs=4k", "--size=16M", "--iodepth=32", `--randseed=${round}`];
      let isOver = false;
      const load = fio(NODE, ...job, ...VERIFY).finally(() => (isOver = true));
      // Anywhere in the 4096 writes, and the reads that verify them.
      await until(`fio is at work in round ${round}`, () => completed() > before + 1400 * round, 60_000);
      expect(isOver).toBe(false);
      // A server that is told to end while its device is in use also leaves that to the next one.
      const [signal, status] = round % 3 === 0 ? (["SIGTERM", 0] as const) : (["SIGKILL", 137] as const);
      expect(await server.stop(signal)).toBe(status);
      server = await Server.start(...(next.length > 0 ? next : first));
      expect(server.path).toBe(NODE);
      expect(await load).toMatchObject({ errors: 0, messages: "" });
    }
    closeSync(held);
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
    await server.stop(round === 2 ? "SIGTERM" : "SIGKILL");
    if (round === 2)
      expect(await server.errors).toBe(
        `tsbuse: warning: ${NODE} is mounted at /mnt/recover: it waits for its next server\n`,
      );
    server = await Server.start("recover", NODE, "loop", FILE);
  }
  expect(await writing).toBe(await sh("seq 200 | sha256sum"));
  await sh(`umount /mnt/recover; fsck.ext4 -fn ${NODE}`);
  expect(await sh("dmesg")).not.toMatch(/I\/O error|EXT4-fs error/);
  expect(await server.stop()).toBe(0);
}, 300_000);

const JOURNAL = "/mnt/journal";

test("a server that is told to end answers what it has begun, and flushes: nothing is asked for twice", async () => {
  const module = "/mnt/slow.ts";
  writeFileSync(
    module,
    `import { appendFileSync } from "node:fs";
    const note = (line: string) => appendFileSync("${JOURNAL}", line + "\\n");
    export default { size: 2 ** 22, identity: "slow", read() {}, flush: () => note("flush"), close: () => note("close"),
      async write(_: Uint8Array, offset: number) { await Bun.sleep(50); note(String(offset)); } };`,
  );
  await sh(`rm -f ${JOURNAL}`);
  const server = await Server.start("run", module, NODE, "--recover");
  const lines = (): string[] => (existsSync(JOURNAL) ? readFileSync(JOURNAL, "utf8").trim().split("\n") : []);
  const load = fio(NODE, "--rw=write", "--bs=4k", "--size=4M", "--iodepth=8");
  await until("some are written", () => lines().length > 10);
  expect(await server.stop("SIGTERM")).toBe(0);
  const first = lines();
  expect(first.slice(-2)).toEqual(["flush", "close"]);
  const next = await Server.start("run", module, NODE, "--recover");
  expect(await load).toMatchObject({ errors: 0, messages: "" });
  expect(await next.stop()).toBe(0);
  const written = lines()
    .filter((line) => /^\d+$/.test(line))
    .map(Number);
  expect(written.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 1024 }, (_, index) => index * 4096));
  expect(first.length).toBeLessThan(1024);
  expect(devices()).toEqual([]);
}, 60_000);

test("users wait meanwhile, list says so, and nobody else gets the node", async () => {
  const server = await Server.start("loop", FILE, NODE, "--create", "4M", "--recover");
  expect(writeDirect(NODE, 0, pattern(4096, 5))).toBe(4096);
  await server.stop("SIGKILL");
  const reading = sh(`dd if=${NODE} bs=4k count=1 iflag=direct status=none | sha256sum`);
  let read = false;
  void reading.then(() => (read = true));
  await untilWaiting();
  expect(await listed()).toMatchObject({ node: NODE, pid: null, waiting: true });
  expect(await refusal("loop", FILE, NODE)).toContain(`${NODE} waits for its server`);
  expect(await refusal("recover", NODE, "deadbeef", "1M")).toContain(`${NODE} has ${4 * MIB} bytes`);
  expect(await refusal("recover", "/dev/ublkb9", "loop", FILE)).toContain("/dev/ublkb9 does not exist");
  expect(read).toBe(false);
  const next = await Server.start("recover", NODE, "loop", FILE);
  expect(await reading).toBe(await sh(`head -c 4096 ${FILE} | sha256sum`));
  expect(await listed()).toMatchObject({ pid: next.pid, waiting: false });
  expect(await refusal("recover", NODE, "deadbeef", "4M")).toContain(`served by process ${next.pid}`);
  expect(await next.stop()).toBe(0);
  expect(devices()).toEqual([]);
});

describe("--recover takes over what waits, and else makes a device", () => {
  test.each([NODE, "ublk", "auto"])("of this identity: %s", async (target) => {
    await sh(`truncate -s 4M ${FILE} ${FILE}.other`);
    const other = ["loop", `${FILE}.other`, "/dev/ublkb1", "--recover"];
    for (const words of [other, ["loop", FILE, NODE, "--recover"]])
      await (await Server.start(...words)).stop("SIGKILL");
    // The node that waits for another device stays unchanged.
    expect(await refusal("loop", FILE, "/dev/ublkb1", "--recover")).toMatch(
      /\/dev\/ublkb1 is of loop:.*, and this .* is loop:/,
    );
    const reading = sh(`dd if=${NODE} bs=4k count=1 iflag=direct status=none | wc -c`);
    const next = await Server.start("loop", FILE, target, "--recover");
    expect(next.path).toBe(NODE);
    expect(await reading).toBe("4096");
    expect(await next.stop()).toBe(0);
    const last = await Server.start(...other);
    expect(last.path).toBe("/dev/ublkb1");
    expect(await refusal("deadbeef", "4M", last.path, "--recover")).toContain(
      `served by process ${last.pid}, `,
    );
    expect(await last.stop()).toBe(0);
    expect(devices()).toEqual([]);
  });

  test("one of several that begin at once wins, and the others say whose it is", async () => {
    const module = "/mnt/recover.ts";
    writeFileSync(module, 'export default { size: 2 ** 22, identity: "it", read() {} };');
    const words = ["run", module, NODE, "--recover"];
    for (let round = 1; round <= 5; round += 1) {
      const starts = await Promise.allSettled([1, 2, 3].map(() => Server.start(...words)));
      const winners = starts.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
      const lost = starts.flatMap((each) => (each.status === "rejected" ? [String(each.reason)] : []));
      expect(winners.length).toBe(1);
      for (const line of lost) expect(line).toMatch(/ublkb0 is (served|being taken over) by process \d+, /);
      // The first round makes the device, the others take it over, and the last one removes it.
      await winners[0]?.stop(round < 5 ? "SIGKILL" : "SIGTERM");
    }
    expect(devices()).toEqual([]);
  }, 300_000);
});

test("a device that waits can be disconnected: its users get errors", async () => {
  const server = await Server.start("loop", FILE, NODE, "--create", "4M", "--recover");
  await server.stop("SIGKILL");
  const reading = run(["dd", `if=${NODE}`, "of=/dev/null", "bs=4k", "count=1", "iflag=direct"]);
  await untilWaiting();
  expect(await run([BINARY, "disconnect", NODE])).toEqual({ status: 0, stdout: "", stderr: "" });
  expect((await reading).status).toBe(1);
  expect(devices()).toEqual([]);
});

describe("a device whose next server was killed while it took over is taken over by another one", () => {
  /** The server's last completed step. */
  const STEPS = ["START_USER_RECOVERY", "mmap", "the first queue"] as const;

  test.each(STEPS.flatMap((step) => [1, 2].map((queues) => [step, queues] as const)))(
    "after %s, of %d queues",
    async (step, queues) => {
      const words = ["loop", FILE];
      const server = await Server.start(
        ...words,
        NODE,
        "--create",
        "4M",
        "--recover",
        "--queues",
        `${queues}`,
      );
      expect(writeDirect(NODE, 0, pattern(4096, 6))).toBe(4096);
      await server.stop("SIGKILL");
      const reading = sh(`dd if=${NODE} bs=4k count=1 iflag=direct status=none | sha256sum`);
      await untilWaiting();
      const program = join(import.meta.dir, "../support/half-taken-over.ts");
      const half = Bun.spawn([process.execPath, program, step], { stdin: "ignore" });
      expect(await half.exited).toBe(137);
      const next = await Server.start("recover", NODE, ...words);
      expect(await reading).toBe(await sh(`head -c 4096 ${FILE} | sha256sum`));
      expect(await next.stop()).toBe(0);
      expect(await sh("dmesg")).not.toMatch(/BUG:|Oops|WARNING/);
    },
  );
});

function fail(): never {
  throw new Error("it fails here");
}

describe("a device that another one could not take over goes on waiting, while that one goes on", () => {
  /** Gives the tags to the driver, and then fails. */
  async function prepareQueue(...words: Parameters<typeof start.prepareQueue>): Promise<PreparedQueue> {
    const queue = await start.prepareQueue(...words);
    const handOver = (fd: number): Promise<void> => queue.handOver(fd).then(fail);
    return { handOver, ended: () => queue.ended(), end: () => queue.end() };
  }

  test.each([
    ["getting what it needs", "ublk/queue/start.ts", { prepareQueue: fail }],
    ["opening it", "ublk/control/set-up.ts", { openCharacterDevice: fail }],
    ["handing over tags", "ublk/queue/start.ts", { prepareQueue }],
    ["the end of recovery", "ublk/control/set-up.ts", { startDevice: fail }],
    ["making its nodes after that", "ublk/device-nodes.ts", { makeBlockNodes: fail }],
  ])("when %s fails", async (_, file, failing) => {
    const server = await Server.start("loop", FILE, NODE, "--create", "4M", "--recover", "--queues", "2");
    await server.stop("SIGKILL");
    await untilWaiting();
    {
      await using __ = await standIn({ [file]: failing });
      await expect(attach(new Loop(FILE), NODE, { resume: true })).rejects.toThrow("it fails here");
    }
    expect(await listed()).toMatchObject({ waiting: true });
    const next = await Server.start("recover", NODE, "loop", FILE);
    expect(await next.stop()).toBe(0);
    expect(await sh("dmesg")).not.toMatch(/BUG:|Oops/);
  });
});

const ASKED = "/mnt/asked";

/** A module that answers no read of its second half and reports that, or answers everything. */
function silentModule(silent: boolean): string {
  return `import { writeFileSync } from "node:fs";
  const silence = () => (writeFileSync("${ASKED}", ""), new Promise(() => undefined));
  export default { size: 2 ** 20, identity: "silent", async read(target: Uint8Array, offset: number) {
    if (${silent} && offset >= 2 ** 19) await silence();
    target.fill(7);
  } };`;
}

test("a server is missed though all requests that there can be were with it", async () => {
  const module = "/mnt/silent.ts";
  writeFileSync(module, silentModule(true));
  const server = await Server.start("run", module, NODE, "--recover", "--queue-depth", "1");
  const reading = sh(`dd if=${NODE} bs=4k count=1 skip=128 iflag=direct status=none | od -An -tx1 | head -1`);
  await until("the request is with the device", () => existsSync(ASKED));
  await server.stop("SIGKILL");
  writeFileSync(module, silentModule(false));
  const next = Bun.spawn([BINARY, "recover", NODE, "run", module], { stdout: "pipe", stderr: "pipe" });
  expect(await reading).toBe("07 ".repeat(16).trim());
  next.kill("SIGTERM");
  expect(await next.exited).toBe(0);
  expect(await next.stderr.text()).toMatch(/^tsbuse: .*the driver has not noticed yet[^\n]*\n$/);
}, 300_000);

describe("only the same device takes over", () => {
  const COW = "/mnt/recover.cow";
  const MODULE = "/mnt/recover.ts";

  test.each([
    [["ramdisk", "4M"], "this device cannot be recovered, its data is lost with its server: "],
    [["loop", FILE, "--layer", "cow"], "this device cannot be recovered, its data is lost with its server: "],
    [["run", MODULE], "this device cannot be recovered, its data is lost with its server: "],
  ])("%p is refused --recover", async (words, line) => {
    writeFileSync(MODULE, "export default { size: 2 ** 22, read() {} };");
    await sh(`truncate -s 4M ${FILE}`);
    expect(await refusal(...words, NODE, "--recover")).toStartWith(`tsbuse: ${line}`);
    expect(devices()).toEqual([]);
    const attaching = attach(new Shadow(2 ** 22), NODE, { recover: true });
    await expect(attaching).rejects.toThrow("this device cannot be recovered");
    expect(devices()).toEqual([]);
  });

  test("another is refused, and leaves it waiting", async () => {
    await sh(`truncate -s 4M ${FILE} ${FILE}.copy`);
    writeFileSync(MODULE, 'export default { size: 2 ** 22, identity: "it", read() {}, write() {} };');
    const server = await Server.start("loop", FILE, NODE, "--recover", "--layer", `cow:file=${COW}`);
    const { identity } = await listed();
    expect(identity).toMatch(/^cow:\d+:\d+\/\d+(\/\d+)?\+loop:\d+:\d+\/\d+(\/\d+)?@0 block=512 rw$/);
    await server.stop("SIGKILL");
    const cow = ["--layer", `cow:file=${COW}`];
    for (const words of [
      ["deadbeef", "4M"],
      ["loop", FILE],
      ["loop", FILE, ...cow, "--read-only"],
      ["loop", FILE, ...cow, "--layer", "delay:read=0"],
      ["loop", `${FILE}.copy`, ...cow],
      ["run", MODULE],
    ])
      expect(await refusal("recover", NODE, ...words)).toStartWith(`tsbuse: ${NODE} is of ${identity}, and `);
    expect(await refusal("recover", NODE, "ramdisk", "4M")).toContain(`cannot take ${NODE} over`);
    const other = attach(new AsyncStore(2 ** 22), NODE, { resume: true });
    await expect(other).rejects.toThrow("cannot take");
    const next = await Server.start("recover", NODE, "loop", FILE, ...cow);
    expect((await listed()).identity).toBe(identity);
    expect(await next.stop()).toBe(0);
    expect(readdirSync("/run/tsbuse")).toEqual([]);
  });

  test("a version that cannot do what users of the node rely on is refused, and one that can do more is not", async () => {
    const version = (methods: string): void =>
      writeFileSync(MODULE, `export default { size: 2 ** 22, identity: "it", read() {}, ${methods} };`);
    version("write() {}, flush() {}, trim() {}");
    const server = await Server.start("run", MODULE, NODE, "--recover");
    await server.stop("SIGKILL");
    version("write() {}, trim() {}");
    expect(await refusal("recover", NODE, "run", MODULE)).toContain(
      "have been promised flush and fua, which",
    );
    version("write() {}, flush() {}, trim() {}, writeZeroes() {}");
    const next = await Server.start("recover", NODE, "run", MODULE);
    expect(await next.stop()).toBe(0);
  });

  test("one of which nothing is known is nobody's, and neither is what another one left", async () => {
    await Server.start("loop", FILE, NODE, "--create", "4M", "--recover").then((one) => one.stop("SIGKILL"));
    const record = "/run/tsbuse/ublkb0";
    const [bound = "", identity = ""] = readFileSync(record, "utf8").split("\n");
    const stamp = Number(bound.split(" ")[1]);
    writeFileSync(record, `${bound.split(" ")[0]} ${stamp + 1}\n${identity}\n`);
    expect(await refusal("recover", NODE, "loop", FILE)).toContain(
      "nothing tells which device it was made for",
    );
    await run(["mv", record, "/run/elsewhere"]);
    expect(await refusal("recover", NODE, "loop", FILE)).toContain(
      "nothing tells which device it was made for",
    );
    expect(await listed()).toMatchObject({ waiting: true, identity: null });
    expect(await run([BINARY, "disconnect", NODE])).toEqual({ status: 0, stdout: "", stderr: "" });
  });

  test("what cannot be kept is not promised", async () => {
    await sh("rm -rf /run/tsbuse; touch /run/tsbuse");
    const line = await refusal("loop", FILE, NODE, "--create", "4M", "--recover");
    expect(line).toContain("/run/tsbuse/ublkb0 cannot be written, where the device's identity is kept (");
    expect([devices(), existsSync(FILE)]).toEqual([[], false]);
    await sh("rm /run/tsbuse");
  });
});

test("without --recover there is nothing to resume", async () => {
  const server = await Server.start("loop", FILE, NODE, "--create", "4M");
  expect(await refusal("recover", NODE, "deadbeef", "4M")).toContain(
    `${NODE} was not attached with --recover`,
  );
  expect(await server.stop()).toBe(0);
});
