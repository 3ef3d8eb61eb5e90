/** Goal: a program that attaches and detaches for as long as it runs needs no more of the system than for one device. */
import { expect, test } from "bun:test";
import { attach } from "tsbuse";
import { Ramdisk } from "../../devices/ramdisk.ts";
import { memoryUse } from "../support/memory-use.ts";
import { type OwnUse, ownUse } from "../support/own-use.ts";
import { sh } from "../support/shell.ts";
import { describeTransports } from "../support/transports.ts";

const MIB = 2 ** 20;
/** What each of them leaves shows after ten as well as after fifty, and one takes some seconds on a busy machine. */
const HALF = 10;
/** Less than the two threads of an attachment have with their engines. */
const LEAK_BYTES = 2 * MIB;

describeTransports((_, disk) => {
  /** What the process has after so many attachments more. */
  async function attachMany(count: number): Promise<OwnUse & { readonly resident: number }> {
    for (let done = 0; done < count; done += 1) {
      await using attachment = await attach(new Ramdisk(4 * MIB), disk.path);
      await sh(`dd if=${attachment.path} of=/dev/null bs=1M count=1 iflag=direct status=none`);
    }
    await disk.untilFree();
    Bun.gc(true);
    return { ...ownUse(), resident: memoryUse().resident };
  }

  test("attachments, one after the other, leave no threads, no file descriptors and no memory", async () => {
    const before = await attachMany(HALF);
    const after = await attachMany(HALF);
    expect(after.descriptors).toBe(before.descriptors);
    // Helpers of the runtime and the kernel come and go.
    expect(after.threads).toBeLessThan(before.threads + HALF);
    expect(after.resident).toBeLessThan(before.resident + HALF * LEAK_BYTES);
  }, 170_000);
});
