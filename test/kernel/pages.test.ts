/** Goal: README's commands do what it says, typed literally, by root. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { asRoot, countingDevice, ROOT } from "../support/pages.ts";
import { endServers, Server } from "../support/server.ts";
import { run, sh, until } from "../support/shell.ts";

const DIRECTORY = "/run/pages";
const DEMO = join(ROOT, "scripts/lib/demo-session.sh");
const README = asRoot(readFileSync(join(ROOT, "README.md"), "utf8"));

/** A command of README as a line for the shell. */
function typed(command: string): string {
  expect(README).toContain(`    ${command}`);
  return `cd ${DIRECTORY} && PATH=${ROOT}/dist:$PATH && exec ${command}`;
}

/** Starts a server with such a command. */
function serve(command: string): Promise<Server> {
  return Server.startBy(["sh", "-c", typed(command)], []);
}

beforeEach(() => mkdirSync(DIRECTORY, { recursive: true }));

afterEach(async () => {
  await sh("umount -q /mnt || true");
  await endServers();
  rmSync(DIRECTORY, { recursive: true });
});

test("the demo", async () => {
  const { status, stdout } = await run(["env", `PATH=${ROOT}/dist:/usr/sbin:/usr/bin`, "sh", DEMO]);
  expect(status).toBe(0);
  expect(stdout).toEndWith("The file came back from the device byte for byte, and the device is gone.\n");
});

test("a device of one's own", async () => {
  writeFileSync(join(DIRECTORY, "counting.ts"), countingDevice());
  const command = "tsbuse run ./counting.ts auto --run 'dd if=$TSBUSE_DEVICE bs=512 skip=7 count=1'";
  const { status, stdout } = await run(["sh", "-c", typed(command)]);
  expect(status).toBe(0);
  expect(stdout).toContain("block 7\n");
});

test("a device that outlives its server, is looked into, and what was seen is repeated", async () => {
  await sh(typed("truncate -s 1G disk.img"));
  const command = "tsbuse loop disk.img /dev/ublkb0 --recover";
  const first = await serve(command);
  await sh("mkfs.ext4 -q /dev/ublkb0 && mount /dev/ublkb0 /mnt");
  expect(await first.stop("SIGKILL")).toBe(137);
  const writing = sh("dd if=/dev/urandom of=/mnt/file bs=1M count=4 conv=fsync status=none");
  await using second = await serve(command);
  await writing;

  const tracing = Bun.spawn(["sh", "-c", typed("tsbuse trace /dev/ublkb0 --seconds 60 --write disk.trace")]);
  const trace = join(DIRECTORY, "disk.trace");
  const traced = (): number => statSync(trace, { throwIfNoEntry: false })?.size ?? 0;
  await until("the trace has begun", () => traced() > 0);
  await sh("dd if=/dev/zero of=/mnt/other bs=64k count=4 conv=fsync status=none");
  tracing.kill("SIGINT");
  expect(await tracing.exited).toBe(0);
  const replayed = await run(["sh", "-c", typed("tsbuse replay disk.trace ramdisk --fast")]);
  expect(replayed).toMatchObject({ status: 0, stdout: expect.stringContaining("write") });
  await sh("umount /mnt");
  expect(await second.stop()).toBe(0);
});
