/** Goal: a queue's thread that serves nothing leaves no file open in the process, and its end can be seen. */
import { expect, test } from "bun:test";
import { readdirSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { Dispatch } from "../../../src/dispatch.ts";
import { Ramdisk } from "../../../devices/ramdisk.ts";
import { messageOf } from "../../../src/errors.ts";
import { close, open } from "../../../src/libc/file.ts";
import { prepareQueue } from "../../../src/ublk/queue/start.ts";
import { makeCounters } from "../../../src/queues/counters.ts";
import { O_RDWR } from "../../../src/uapi/fcntl.ts";
import { writeFiles } from "../../support/files.ts";
import { TemporaryDirectory } from "../../support/temporary.ts";
import { until } from "../../support/shell.ts";

function rings(): number {
  const links = readdirSync("/proc/self/fd").map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return "closed by now";
    }
  });
  return links.filter((link) => link === "anon_inode:[io_uring]").length;
}

test.each(["is not handed over", "cannot be handed over"])("when it %s", async (how) => {
  const before = rings();
  const place = { index: 0, depth: 4, requestBytes: 4096, needGetData: false };
  using stack = new DisposableStack();
  const device = stack.adopt(new Ramdisk(2 ** 20), (it) => void it.close());
  const dispatch = new Dispatch(device);
  const queue = await prepareQueue(place, dispatch, makeCounters(), {}, () => undefined);
  expect(rings()).toBe(before + 1);
  // It is not a ublk device.
  if (how !== "is not handed over") {
    const fd = stack.adopt(open("/dev/null", O_RDWR), close);
    const said = await queue.handOver(fd).catch(messageOf);
    expect(said).toBe("a queue's thread failed: mmap of 4096 bytes: No such device");
  }
  await queue.end();
  await until("the ring is closed", () => rings() === before);
});

test.skipIf(process.geteuid?.() !== 0)("after switch_root a thread still knows itself", () => {
  using directory = new TemporaryDirectory();
  const source = join(import.meta.dir, "../../../src/ublk/queue/on-thread.ts");
  const path = writeFiles(directory.path, {
    "program.ts": `
      const { isThere, ownThread } = await import(${JSON.stringify(source)});
      const script = 'mkdir "$0" && mount --rbind / "$0" && umount -l /proc && mount --move "$0" /';
      const { exitCode } = Bun.spawnSync(["sh", "-ec", script, ${JSON.stringify(directory.join("root"))}]);
      const thread = ownThread();
      console.log(exitCode, thread, isThere(thread), isThere(thread + "0"));`,
  });
  const { stdout } = Bun.spawnSync(["unshare", "-m", process.execPath, path]);
  expect(stdout.toString()).toMatch(/^0 \/proc\/\d+\/task\/\d+ true false\n$/);
});
