/**
 * A server that begins to take over /dev/ublkb0 and is killed: `bun half-taken-over.ts STEP`, where STEP is the last
 * step that it completes.
 */
import { Dispatch } from "../../src/dispatch.ts";
import { unwrap } from "../../src/libc/errno.ts";
import { UBLK_U_CMD_START_USER_RECOVERY } from "../../src/uapi/ublk_cmd.ts";
import { Control } from "../../src/ublk/control/control.ts";
import { openCharacterDevice } from "../../src/ublk/control/set-up.ts";
import { deviceInfo } from "../../src/ublk/nodes.ts";
import { Descriptors } from "../../src/ublk/queue/descriptors.ts";
import { Queue } from "../../src/ublk/queue/queue.ts";
import { makeCounters } from "../../src/queues/counters.ts";
import { Shadow } from "./shadow.ts";

const step = process.argv[2];
const control = new Control();
const info = await deviceInfo(control, 0);
if (info === undefined) throw new Error("there is no device");
unwrap(await control.command(UBLK_U_CMD_START_USER_RECOVERY, { device: 0 }), "START_USER_RECOVERY");
const { queueDepth: depth, requestBytes } = info;
if (step !== "START_USER_RECOVERY") {
  const fd = openCharacterDevice(0);
  if (step === "mmap") new Descriptors(0, depth).map(fd);
  else {
    const place = { index: 0, depth, requestBytes, needGetData: false };
    new Queue(place, new Dispatch(new Shadow(2 ** 22)), makeCounters()).handOver(fd);
  }
}
process.kill(process.pid, "SIGKILL");
