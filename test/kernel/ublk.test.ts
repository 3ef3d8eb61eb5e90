/** Goal: a ublk device is made completely or not at all, and leaves nothing behind. */
import { afterEach, beforeEach, describe, expect, spyOn, test } from "bun:test";
import { existsSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { attach } from "tsbuse";
import { Dispatch } from "../../src/dispatch.ts";
import { UBLK_MAX_QUEUE_DEPTH, UBLK_U_CMD_ADD_DEV, UBLK_U_CMD_DEL_DEV } from "../../src/uapi/ublk_cmd.ts";
import { Control } from "../../src/ublk/control/control.ts";
import { encodeDeviceInfo } from "../../src/ublk/control/device-info.ts";
import { AsyncStore } from "../support/async-devices.ts";
import { fio, VERIFY } from "../support/fio.ts";
import { pattern, readDirect, writeDirect } from "../support/node-io.ts";
import { BINARY, endServers, refusal, Server } from "../support/server.ts";
import { run, sh, until } from "../support/shell.ts";
import { threadTicks } from "../support/thread-ticks.ts";
import { completed, devices, inFlight } from "../support/ublk-nodes.ts";
import { standIn } from "../support/stand-in.ts";

const NODE = "/dev/ublkb0";
const END_LIMIT_MS = 15_000;
/** A server that takes longer to end counts as hung. */
const END_UNDER_LOAD_LIMIT_MS = 30_000;
const MIB = 2 ** 20;

/** The offset of a read after the start of the device, in bytes. */
const SILENT = 2 ** 19;

/** The path of a module whose device answers everything except reads at the offset. */
function silentAt(offset: number): string {
  writeFileSync(
    "/mnt/silent.ts",
    `export default { size: 2 ** 20, async read(target: Uint8Array, offset: number) {
       if (offset === ${offset}) await new Promise(() => undefined);
       target.fill(7);
     } };`,
  );
  return "/mnt/silent.ts";
}

/** Reads 4 KiB there, bypassing the page cache. */
function readSilent(): Promise<{ readonly status: number }> {
  return run(["dd", `if=${NODE}`, "of=/dev/null", "bs=4k", "count=1", "skip=128", "iflag=direct"]);
}

beforeEach(async () => {
  await sh("modprobe ublk_drv");
});

afterEach(async () => {
  await endServers();
  // Removes what killed servers left behind; no test may leave anything else.
  if (devices().length > 0) await run([BINARY, "ramdisk", "1M", "ublk", "--run", "true"]);
  await until("the driver has no device", () => devices().length === 0);
});

/** Adds a device as a server does before starting it. */
async function add(control: Control, id: number, change: (info: Uint8Array) => unknown): Promise<void> {
  const info = encodeDeviceInfo({ id, queues: 1, queueDepth: 8, requestBytes: 65_536, flags: 1 << 6 });
  change(info);
  expect(await control.command(UBLK_U_CMD_ADD_DEV, { device: id, buffer: info })).toBe(0);
}

describe("a number", () => {
  test("is chosen by the driver where none is named, and two devices are two", async () => {
    const first = await Server.start("ramdisk", "4M", "ublk");
    const second = await Server.start("ramdisk", "8M", "ublk");
    expect([first.path, second.path]).toEqual(["/dev/ublkb0", "/dev/ublkb1"]);
    expect(writeDirect(first.path, 0, pattern(4096, 1))).toBe(4096);
    expect(writeDirect(second.path, 0, pattern(4096, 2))).toBe(4096);
    expect(readDirect(first.path, 0, 4096)).toEqual(pattern(4096, 1));
    expect(await first.stop()).toBe(0);
    expect(readDirect(second.path, 0, 4096)).toEqual(pattern(4096, 2));
    expect(await second.stop()).toBe(0);
    expect(devices()).toEqual([]);
  });

  test("that is taken is refused, naming the process that serves it", async () => {
    const first = await Server.start("ramdisk", "4M", NODE);
    expect(await refusal("ramdisk", "4M", NODE)).toStartWith(
      `tsbuse: ${NODE} is served by process ${first.pid}, "${BINARY} ramdisk 4M ${NODE}": `,
    );
    expect(writeDirect(NODE, 0, pattern(4096, 1))).toBe(4096);
    expect(await first.stop()).toBe(0);
  });
});

describe("a kernel whose driver is known to be bad", () => {
  test.each([
    ["auto", "/dev/nbd0", /^an NBD node is used: it is bad: use another kernel, /],
    ["ublk", NODE, /^it is bad: use an NBD node, or another kernel$/],
  ])("with %s gives %s, and says why", async (target, node, line) => {
    await using _ = await standIn({ "ublk/known-bad.ts": { whyBadDriver: () => "it is bad" } });
    const lines: string[] = [];
    const log = (text: string): unknown => lines.push(text);
    await using attachment = await attach(new AsyncStore(4 * MIB), target, { log });
    expect(attachment.path).toBe(node);
    expect(lines).toEqual([expect.stringMatching(line)]);
  });
});

test.each([
  [1, ""],
  [2, "tsbuse: warning: this process gives the ublk driver all its commands itself, "],
])("files in memory need not be run: vm.memfd_noexec=%d", async (value, line) => {
  // The value cannot be lowered again, so it is set in a separate PID namespace.
  const serving = `${BINARY} ramdisk 4M ${NODE} --run 'dd if=${NODE} of=/dev/null bs=4k count=8 status=none'`;
  const script = `echo ${value} >/proc/sys/vm/memfd_noexec; ${serving}`;
  const end = await run(["unshare", "--pid", "--fork", "--mount-proc", "sh", "-euc", script]);
  expect(end).toMatchObject({ status: 0, stdout: `${NODE}\n` });
  expect(end.stderr.split("\n").length).toBe(line === "" ? 1 : 2);
  expect(end.stderr).toStartWith(line);
  await until("the driver has no device", () => devices().length === 0);
});

test("auto takes ublk, and says so with the path alone", async () => {
  const end = await run([BINARY, "ramdisk", "4M", "auto", "--run", "true"]);
  expect(end).toEqual({ status: 0, stdout: `${NODE}\n`, stderr: "" });
});

describe("a start that fails leaves nothing", () => {
  test("without io_uring, and auto takes NBD", async () => {
    const file = "/proc/sys/kernel/io_uring_disabled";
    const before = readFileSync(file, "utf8");
    writeFileSync(file, "2");
    try {
      expect(await refusal("ramdisk", "4M", NODE)).toContain("sysctl kernel.io_uring_disabled=0");
      expect(devices()).toEqual([]);
      const auto = await run([BINARY, "ramdisk", "4M", "auto", "--run", "true"]);
      expect(auto).toMatchObject({ status: 0, stdout: "/dev/nbd0\n" });
      expect(auto.stderr).toMatch(/^tsbuse: .*an NBD node is used: .*io_uring.*\n$/);
    } finally {
      writeFileSync(file, before);
    }
  });
});

test("a driver that is not loaded is loaded", async () => {
  // The kernel closes the files of the last servers a little later.
  await until("the driver is unloaded", async () => (await run(["rmmod", "ublk_drv"])).status === 0);
  expect(existsSync("/dev/ublk-control")).toBe(false);
  const list = await run([BINARY, "list", "--json"]);
  expect(list).toEqual({ status: 0, stdout: "[]\n", stderr: "" });
  const server = await Server.start("ramdisk", "4M", NODE);
  expect(await server.stop()).toBe(0);
});

describe("what is left behind", () => {
  test("by a server that was killed is cleared away by the next start", async () => {
    const server = await Server.start("ramdisk", "4M", NODE);
    await server.stop("SIGKILL");
    await until("the node is gone", () => !existsSync(NODE));
    expect(devices()).toEqual(["ublkc0"]);
    const other = await Server.start("ramdisk", "4M", "/dev/ublkb7");
    expect(devices()).toEqual(["ublkb7", "ublkc7"]);
    expect(await other.stop()).toBe(0);
  });

  test("by a server that was killed does not keep its number, not even for a moment", async () => {
    for (let i = 0; i < 4; i += 1) {
      const server = await Server.start("ramdisk", "4M", NODE);
      await server.stop("SIGKILL");
    }
    const last = await Server.start("ramdisk", "4M", NODE);
    expect(await last.stop()).toBe(0);
  });

  test("is not what another tsbuse serves", async () => {
    const live = await Server.start("ramdisk", "4M", "/dev/ublkb3");
    const server = await Server.start("ramdisk", "4M", NODE);
    expect(await server.stop()).toBe(0);
    expect(writeDirect("/dev/ublkb3", 0, pattern(4096, 3))).toBe(4096);
    expect(await live.stop()).toBe(0);
  });

  test("is neither what another program made, nor what a tsbuse is about to start", async () => {
    const control = new Control();
    try {
      // struct ublksrv_ctrl_dev_info: `ublksrv_flags`, which belongs to the server, is at 32.
      await add(control, 10, (info) => info.fill(0, 32, 40));
      await add(control, 11, () => undefined);
      const dead = Bun.spawnSync(["true"]).pid;
      await add(control, 12, (info) => new DataView(info.buffer).setUint32(32, dead, true));
      expect(devices()).toEqual(["ublkc10", "ublkc11", "ublkc12"]);
      const server = await Server.start("ramdisk", "4M", NODE);
      expect(devices()).toEqual(["ublkb0", "ublkc0", "ublkc10", "ublkc11"]);
      expect(await server.stop()).toBe(0);
      expect(devices()).toEqual(["ublkc10", "ublkc11"]);
    } finally {
      for (const device of [10, 11]) await control.command(UBLK_U_CMD_DEL_DEV, { device });
      control.close();
    }
  });

  test("is shown by list, and taken away by disconnect", async () => {
    const server = await Server.start("ramdisk", "4M", NODE);
    await server.stop("SIGKILL");
    await until("the node is gone", () => !existsSync(NODE));
    const [shown] = JSON.parse((await run([BINARY, "list", "--json"])).stdout);
    expect(shown).toMatchObject({ node: NODE, pid: null });
    expect(await run([BINARY, "disconnect", NODE])).toEqual({ status: 0, stdout: "", stderr: "" });
    expect(devices()).toEqual([]);
  });
});

describe("the end", () => {
  test.each(["SIGINT", "SIGTERM"] as const)(
    "by %s does not wait for a reader, names it, and the number is free when it has closed",
    async (signal) => {
      const server = await Server.start("ramdisk", "4M", NODE);
      const reader = Bun.spawn(["sleep", "600"], { stdin: Bun.file(NODE) });
      try {
        await until("the reader has it open", () => readlinkSync(`/proc/${reader.pid}/fd/0`) === NODE);
        expect(await server.stop(signal, END_LIMIT_MS)).toBe(0);
        expect(await server.errors).toMatch(
          new RegExp(`^tsbuse: .*${NODE} .* sleep \\(process ${reader.pid}\\).*\n$`),
        );
        expect(existsSync(NODE)).toBe(false);
        expect(await refusal("ramdisk", "4M", NODE)).toContain(
          `until sleep (process ${reader.pid}) closes it`,
        );
      } finally {
        reader.kill();
        await reader.exited;
      }
      const next = await Server.start("ramdisk", "4M", NODE);
      expect(await next.stop()).toBe(0);
    },
  );

  test("comes at the second signal while the device answers nothing, and its users get errors", async () => {
    const server = await Server.start("run", silentAt(SILENT), NODE);
    const reading = readSilent();
    await until("the request is with the device", () => /\s1\s/.test(inFlight()));
    process.kill(server.pid, "SIGTERM");
    await until("it is being stopped", () => !existsSync("/sys/block/ublkb0"));
    expect(await server.stop("SIGTERM", 10_000)).toBe(1);
    expect(await server.errors).toContain(`${NODE} was cut off`);
    expect((await reading).status).toBe(1);
  });

  test("does not hang when requests have timed out, and all of those have been answered", async () => {
    const module = "/mnt/silent.ts";
    writeFileSync(
      module,
      `export default { size: 2 ** 20, async read(target: Uint8Array, offset: number) {
         if (offset >= 2 ** 19) await new Promise(() => undefined);
         target.fill(7);
       } };`,
    );
    const server = await Server.start("run", module, NODE, "--request-timeout", "1", "--queue-depth", "2");
    const read = (block: number): Promise<{ readonly status: number }> =>
      run(["dd", `if=${NODE}`, "of=/dev/null", "bs=4k", "count=1", `skip=${block}`, "iflag=direct"], 20_000);
    expect(await read(128)).toMatchObject({ status: 1 });
    expect(await Promise.all([read(129), read(130)])).toMatchObject([{ status: 1 }, { status: 1 }]);
    expect(await server.stop("SIGTERM", 10_000)).toBe(0);
    expect((await server.errors).match(/: answered with EIO\n/g)).toHaveLength(3);
  });

  test.each([
    ["started", 0],
    ["stopped", SILENT],
  ])("comes by kill -9 while the device is being %s and does not answer", async (doing, silent) => {
    const child = Bun.spawn([BINARY, "run", silentAt(silent), NODE], {
      stdio: ["ignore", "ignore", "ignore"],
    });
    let reading: Promise<unknown> = Promise.resolve();
    if (doing === "stopped") {
      await until("it is ready", () => existsSync("/sys/block/ublkb0"));
      reading = readSilent();
    }
    await until(
      "the request is with the device",
      () => existsSync("/sys/block/ublkb0/inflight") && /\s1\s/.test(inFlight()),
    );
    if (doing === "stopped") {
      child.kill("SIGTERM");
      await until("it is being stopped", () => !existsSync("/sys/block/ublkb0"));
    }
    child.kill("SIGKILL");
    await until("it has ended", () => child.signalCode !== null || child.exitCode !== null);
    await reading;
    await until("only what the next start clears away is left", () => !devices().includes("ublkb0"));
  });

  test(
    "comes while a device that takes its time over each request has more of them all the time",
    async () => {
      const module = "/mnt/slow.ts";
      writeFileSync(
        module,
        `export default { size: 2 ** 20, read(target: Uint8Array) {
           Bun.sleepSync(2);
           target.fill(7);
         } };`,
      );
      const server = await Server.start("run", module, NODE);
      const load = ["--rw=randread", "--bs=4k", "--direct=1", "--ioengine=libaio", "--iodepth=128"];
      // Once the node is gone, it reads nothing for as long as it may run.
      const reader = Bun.spawn(
        ["fio", "--name=job", "--thread", `--filename=${NODE}`, ...load, "--time_based", "--runtime=600"],
        { stdio: ["ignore", "ignore", "ignore"] },
      );
      try {
        await until("the queue has been full", () => completed() > 256, END_UNDER_LOAD_LIMIT_MS);
        expect(await server.stop("SIGTERM", END_UNDER_LOAD_LIMIT_MS)).toBe(0);
      } finally {
        reader.kill("SIGKILL");
        await reader.exited;
      }
    },
    3 * END_UNDER_LOAD_LIMIT_MS,
  );

  test("comes when a queue on the main thread fails: requests fail, and `done` is rejected", async () => {
    const attachment = await attach(new AsyncStore(4 * MIB), NODE);
    // Thrown outside the device's methods, whose exceptions are caught.
    using _ = spyOn(Dispatch.prototype, "checkRead").mockImplementation(() => {
      throw new Error("the gate is broken");
    });
    const read = await run(["dd", `if=${NODE}`, "of=/dev/null", "bs=4k", "count=1", "iflag=direct"], 10_000);
    expect(read.status).toBe(1);
    await expect(attachment.done).rejects.toThrow("the gate is broken");
    await until("the driver has no device", () => devices().length === 0);
  });
});

describe("requests", () => {
  test.each([
    ["a thread of its own", ["ramdisk", "16M"]],
    ["the event loop", ["deadbeef", "16M"]],
  ])("are waited for without a processor, on %s", async (_, words) => {
    const server = await Server.start(...words, NODE);
    await sh(`dd if=${NODE} of=/dev/null bs=4k count=500 iflag=direct status=none`);
    const ticks = (): number => threadTicks(server.pid).reduce((sum, each) => sum + each.ticks, 0);
    const before = ticks();
    // Not a wait for an event: it must stay idle for this long.
    await Bun.sleep(2000);
    // A second has a hundred ticks.
    expect(ticks() - before).toBeLessThan(60);
  });

  test.each([1, 7, UBLK_MAX_QUEUE_DEPTH])("go through a queue of depth %d", async (depth) => {
    const server = await Server.start("ramdisk", "64M", NODE, "--queue-depth", String(depth));
    // One request of everything that the driver lets through at once.
    for (const length of [512, 65_536, 1024 * 1024 + 512]) {
      const written = pattern(length, length);
      expect(writeDirect(NODE, 512, written)).toBe(length);
      expect(readDirect(NODE, 512, length)).toEqual(written);
    }
    const report = await fio(NODE, "--bs=4k", "--size=2M", "--iodepth=64", "--randseed=18", ...VERIFY);
    expect(report).toMatchObject({ errors: 0, messages: "" });
    expect(await server.stop()).toBe(0);
  });
});
